//! A test's own copy of the simulated library, with its scenario in the same folder.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs, io};

use crate::machine::Statistics;
use crate::scenario::Scenario;

/// Returns the shared library that cargo built: next to the test's executable, or in its `deps`.
pub fn library_path() -> io::Result<PathBuf> {
    let name = "libsimulated_nvml.so";
    let executable = env::current_exe()?;
    let folders = executable.ancestors().skip(1).take(3);
    let mut places = folders.flat_map(|folder| [folder.join(name), folder.join("deps").join(name)]);

    places.find(|path| path.is_file()).ok_or_else(|| {
        let message = format!(
            "cannot find {name} next to {} or in deps/ there; build the package simulated-nvml",
            executable.display()
        );
        io::Error::new(io::ErrorKind::NotFound, message)
    })
}

/// A copy of the library in a directory of the test, and its scenario.
#[derive(Debug)]
pub struct SimulatedDriver {
    directory: PathBuf,
    library: PathBuf,
}

impl SimulatedDriver {
    /// Copies the library into `directory` (which must exist) and sets its first scenario.
    pub fn install(directory: &Path, scenario: &Scenario) -> io::Result<Self> {
        Self::install_without(directory, scenario, &[])
    }

    /// Installs a copy without `symbols`, as in the library of an old driver.
    pub fn install_without(
        directory: &Path,
        scenario: &Scenario,
        symbols: &[&str],
    ) -> io::Result<Self> {
        let mut image = fs::read(library_path()?)?;
        for symbol in symbols {
            hide_symbol(&mut image, symbol)?;
        }

        let driver = Self {
            directory: directory.to_owned(),
            library: directory.join("libnvidia-ml.so.1"),
        };

        driver.set(scenario)?;
        fs::write(&driver.library, image)?;

        Ok(driver)
    }

    /// Returns the path to load.
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// Replaces the scenario atomically, for all later calls.
    pub fn set(&self, scenario: &Scenario) -> io::Result<()> {
        let fresh = self.directory.join("scenario.json.new");
        fs::write(&fresh, serde_json::to_vec_pretty(scenario)?)?;
        fs::rename(fresh, self.directory.join("scenario.json"))
    }

    /// Returns the counts of the library up to its last init or shutdown.
    pub fn statistics(&self) -> io::Result<Statistics> {
        match fs::read(self.directory.join("statistics.json")) {
            Ok(text) => Ok(serde_json::from_slice(&text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Statistics::default()),
            Err(error) => Err(error),
        }
    }

    /// Waits until a call of `symbol` has hung because of a [`crate::Fault::hang`].
    ///
    /// # Errors
    /// No call has hung within `limit`.
    pub fn until_hung(&self, symbol: &str, limit: Duration) -> io::Result<()> {
        self.wait_for_marker("hung", symbol, limit)
    }

    /// Waits until a call of `symbol` has failed because of a [`crate::Fault::code`].
    ///
    /// # Errors
    /// No call has failed within `limit`.
    pub fn until_failed(&self, symbol: &str, limit: Duration) -> io::Result<()> {
        self.wait_for_marker("failed", symbol, limit)
    }

    fn wait_for_marker(&self, event: &str, symbol: &str, limit: Duration) -> io::Result<()> {
        let marker = self.directory.join(format!("{event}-{symbol}"));
        let begun = Instant::now();
        while !marker.exists() {
            if begun.elapsed() > limit {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no call of {symbol} has {event} within {limit:?}"),
                ));
            }
            std::thread::sleep(Duration::from_millis(1));
        }

        Ok(())
    }
}

/// Renames a symbol in the image's string table, so that a lookup by its name and hash fails.
fn hide_symbol(image: &mut [u8], symbol: &str) -> io::Result<()> {
    let wanted: Vec<u8> = [b"\0", symbol.as_bytes(), b"\0"].concat();
    let mut hidden = false;

    for start in 0..image.len().saturating_sub(wanted.len()) {
        if image[start..].starts_with(&wanted) {
            image[start + 1] = b'X';
            hidden = true;
        }
    }

    if hidden {
        Ok(())
    } else {
        let message = format!("the library has no symbol {symbol}");
        Err(io::Error::new(io::ErrorKind::NotFound, message))
    }
}
