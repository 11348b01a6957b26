"""The parts that all long-running programs of Rabbitry share: options, output, logging, signals, child processes."""
