//! Numbers for generated inventories and logins: the same for the same seed.

/// splitmix64, from Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014).
pub struct Numbers(pub u64);

impl Numbers {
    /// Returns a number below `below`.
    pub fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % below as u64).unwrap()
    }

    /// Returns one of these.
    pub fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.next(of.len())]
    }

    /// Says yes once in `of` times.
    pub fn chance(&mut self, of: usize) -> bool {
        self.next(of) == 0
    }
}
