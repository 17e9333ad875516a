"""What questions cost as a registry grows."""
