//! Tests of the real `landfall` program, under `tests/`; nothing here is for use elsewhere.
