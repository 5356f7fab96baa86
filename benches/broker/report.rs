//! Collects the values of all rounds, and prints their medians.

/// The values of each subject, one for each round.
#[derive(Default)]
pub(crate) struct Rounds {
    values: Vec<(&'static str, Vec<f64>)>,
}

impl Rounds {
    pub(crate) fn add(&mut self, subject: &'static str, value: f64) {
        match self.values.iter_mut().find(|known| known.0 == subject) {
            Some((_, values)) => values.push(value),
            None => self.values.push((subject, vec![value])),
        }
    }

    /// Prints the median of each subject.
    pub(crate) fn report(mut self, series: &str, parameter: &str, unit: &str) {
        for (subject, values) in &mut self.values {
            values.sort_unstable_by(f64::total_cmp);
            line(&format!("{series}/{subject}/{parameter} {:.2} {unit}", values[values.len() / 2]));
        }
    }
}

#[expect(clippy::print_stdout, reason = "its output is what a benchmark is for")]
fn line(line: &str) {
    println!("{line}");
}
