"""Pictures: tables and arrays in, PNG bytes out; matplotlib without a display and without global state."""
