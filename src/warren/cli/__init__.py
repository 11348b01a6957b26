"""The warren command, a file for each group of subcommands."""
