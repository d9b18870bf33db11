//! Values by table.
