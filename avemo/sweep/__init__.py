"""The fusion laboratory: settings × seeds of one experiment, trained together, compared with statistics in a table."""
