//! The baseline of the install benchmark: what a careful administrator's shell script does.
