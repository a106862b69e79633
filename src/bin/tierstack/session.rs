//! Stores of config files, opened for one command and closed at its end, however it ends.
