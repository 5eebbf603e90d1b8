"""Tables of features and labels, as others hand them in, to one record per recording on the labels' times."""
