//! A/B measurements: the baseline and the subject run in turns within one process, so that what else
//! the machine does meets both. What is reported is the median over the rounds of the ratio between
//! neighbours, which one disturbed round does not move.

use std::fmt;
use std::time::{Duration, Instant};

/// How long one side of a round takes at least.
const SIDE: Duration = Duration::from_millis(40);
const ROUNDS: usize = 15;

/// What a comparison found.
#[derive(Clone, Debug)]
pub(crate) struct Ratio {
    /// What was compared.
    pub(crate) name: String,
    /// Nanoseconds an operation of the baseline, in the median round.
    pub(crate) baseline: f64,
    /// Nanoseconds an operation of the subject, in the median round.
    pub(crate) subject: f64,
    /// Subject by baseline: below 1 the subject is faster. Median of the rounds.
    pub(crate) ratio: f64,
    /// The same in the lowest and the highest quarter of the rounds.
    pub(crate) spread: (f64, f64),
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (low, high) = self.spread;
        write!(
            f,
            "{:<44} {:>12.1} ns {:>12.1} ns  x {:.2}  ({low:.2} to {high:.2})",
            self.name, self.baseline, self.subject, self.ratio
        )
    }
}

/// Prints the names of the columns.
pub(crate) fn heading() {
    println!("{:<44} {:>15} {:>15}  ratio", "per operation", "baseline", "tierstack");
}

/// Compares two ways of doing a number of operations, and prints and returns the ratio.
pub(crate) fn compare(name: &str, mut baseline: impl FnMut(u64), mut subject: impl FnMut(u64)) -> Ratio {
    // The first calls warm both sides up.
    let times = calibrate(&mut baseline).min(calibrate(&mut subject));
    let mut rounds = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        let (a, b) = if round % 2 == 0 {
            let a = per_operation(&mut baseline, times);
            (a, per_operation(&mut subject, times))
        } else {
            let b = per_operation(&mut subject, times);
            (per_operation(&mut baseline, times), b)
        };
        rounds.push((a, b));
    }
    let ratios = sorted(rounds.iter().map(|(a, b)| b / a));
    let found = Ratio {
        name: name.to_owned(),
        baseline: sorted(rounds.iter().map(|(a, _)| *a))[ROUNDS / 2],
        subject: sorted(rounds.iter().map(|(_, b)| *b))[ROUNDS / 2],
        ratio: ratios[ROUNDS / 2],
        spread: (ratios[ROUNDS / 4], ratios[ROUNDS - 1 - ROUNDS / 4]),
    };
    println!("{found}");
    found
}

/// How many operations take about as long as a side of a round should.
fn calibrate(side: &mut impl FnMut(u64)) -> u64 {
    let mut times = 1;
    loop {
        let begun = Instant::now();
        side(times);
        let took = begun.elapsed();
        if took >= SIDE / 4 {
            let scale = SIDE.as_secs_f64() / took.as_secs_f64();
            return ((times as f64 * scale) as u64).max(1);
        }
        times *= 2;
    }
}

fn per_operation(side: &mut impl FnMut(u64), times: u64) -> f64 {
    let begun = Instant::now();
    side(times);
    begun.elapsed().as_nanos() as f64 / times as f64
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}
