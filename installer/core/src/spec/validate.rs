//! Rules that a spec and inventory must obey; every problem is reported at once.
