"""The release that avemo carries: how it is made, what it scores, and the page that says so."""
