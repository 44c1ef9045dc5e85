//! How fast servers are: shared by the speed tests and the bench.

use std::fmt;

pub mod loads;
pub mod placement;
pub mod questions;
pub mod servers;

/// How one of two compares with the other.
pub struct Ratio {
    /// The median of all rounds.
    pub median: f64,
    range: (f64, f64),
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(
            f,
            "{:.3} (from {:.3} to {:.3})",
            self.median, self.range.0, self.range.1
        )
    }
}

/// Measures two rates in turn, in one run, so that what slows the machine slows both.
pub fn median_ratio(ours: impl Fn() -> f64, other: impl Fn() -> f64) -> Ratio {
    const ROUNDS: usize = 11;
    // Whoever comes first in a round has the colder caches, so each does once.
    let round = |_| {
        let [a, b, c, d] = [ours(), other(), other(), ours()];
        (a + d) / (b + c)
    };
    let mut ratios: Vec<f64> = (0..ROUNDS).map(round).collect();
    ratios.sort_by(f64::total_cmp);
    Ratio {
        median: ratios[ROUNDS / 2],
        range: (ratios[0], ratios[ROUNDS - 1]),
    }
}
