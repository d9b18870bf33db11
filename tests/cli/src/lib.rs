//! Tests of the real `landfall` program, in `tests/`. The library is empty.
