"""Jobs: what the command line runs, one file per job, table or figure."""
