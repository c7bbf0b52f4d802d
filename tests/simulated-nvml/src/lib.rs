//! A look-alike of the NVIDIA management library.
