//! `backup`: bases of what the backend holds.
