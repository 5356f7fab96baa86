//! The arguments of the runner, and the variables of its environment.

pub(crate) const USAGE: &str =
    "usage: conformance [--deep] [--planted] [--list] [--verbose] [--driver COMMAND] [WORD…]
Words choose clients and trials that have them in their names. With --planted, they choose faults:
each is planted into a copy of a client, and the trials must find it. The environment can say how often
--deep runs each trial (CONFORMANCE_REPETITIONS), how often a run repeats what depends on chance
(CONFORMANCE_ROUNDS), and how many cells run at a time (RUST_TEST_THREADS); with CONFORMANCE_TIMES,
the slowest cells are listed.";

#[derive(Default)]
pub(crate) struct Arguments {
    pub(crate) deep: bool,
    /// Print what happened in every cell, not only in those that failed.
    pub(crate) verbose: bool,
    /// Plant faults into the clients instead, and see whether the trials find them.
    pub(crate) planted: bool,
    /// Print the trials and what each of them shows.
    pub(crate) list: bool,
    /// A line for the shell, which starts a driver that is not of this repository.
    pub(crate) driver: Option<String>,
    pub(crate) words: Vec<String>,
    /// This program is to be the driver of the Rust client.
    pub(crate) as_rust_driver: bool,
}

impl Arguments {
    pub(crate) fn parse(mut given: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Self::default();
        while let Some(argument) = given.next() {
            match argument.as_str() {
                "--deep" => arguments.deep = true,
                "--planted" => arguments.planted = true,
                "--verbose" => arguments.verbose = true,
                "--list" => arguments.list = true,
                "--as-rust-driver" => arguments.as_rust_driver = true,
                "--driver" => arguments.driver = Some(given.next().ok_or(USAGE)?),
                // What `cargo test` passes on to every test program.
                "--nocapture" | "--quiet" | "-q" | "--exact" | "--ignored" | "--include-ignored" => {}
                "--test-threads" | "--skip" => drop(given.next()),
                option if option.starts_with('-') => return Err(format!("unknown option {option}\n{USAGE}")),
                word => arguments.words.push(word.to_owned()),
            }
        }
        Ok(arguments)
    }

    /// The names that the words choose: those that are a word, or else all that have one in them.
    /// All, if no word is about these names.
    ///
    /// A word that is one of `others`, as a whole, is not about these names.
    pub(crate) fn choose(&self, names: &[&'static str], others: &[&str]) -> Vec<&'static str> {
        let of_word = |word: &String| match names.iter().find(|name| *name == word) {
            Some(name) => vec![*name],
            None => names.iter().copied().filter(|name| name.contains(word.as_str())).collect(),
        };
        let words = self.words.iter().filter(|word| !others.contains(&word.as_str()));
        let chosen: Vec<_> = words.flat_map(of_word).collect();
        if chosen.is_empty() { names.to_vec() } else { chosen }
    }

    /// The first word that is in none of these names.
    pub(crate) fn unknown_word(&self, names: &[&str]) -> Option<&str> {
        let is_unknown = |word: &&String| !names.iter().any(|name| name.contains(word.as_str()));
        self.words.iter().find(is_unknown).map(String::as_str)
    }

    /// How often each trial is run.
    pub(crate) fn repetitions(&self) -> usize {
        if self.deep { from_environment("CONFORMANCE_REPETITIONS").unwrap_or(10) } else { 1 }
    }

    /// How often a run of a trial repeats what depends on chance.
    pub(crate) fn rounds(&self) -> usize {
        from_environment("CONFORMANCE_ROUNDS").unwrap_or(if self.deep { 50 } else { 20 })
    }

    /// How many cells are run at a time, apart from those that mostly wait.
    pub(crate) fn threads(&self) -> usize {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        from_environment("RUST_TEST_THREADS").unwrap_or(2 * processors).max(1)
    }
}

fn from_environment(name: &str) -> Option<usize> {
    std::env::var(name).ok()?.parse().ok()
}
