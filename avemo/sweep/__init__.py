"""The sweep: settings × seeds of one experiment, trained together and compared with statistics."""
