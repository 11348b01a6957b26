"""What every long-running program here needs: options, output, logging, signals, child processes."""
