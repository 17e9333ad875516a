"""What questions cost as a registry grows: look-ups, to 100,000 models made of real ones, and classes."""
