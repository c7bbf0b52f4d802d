//! A test's own copy of the simulated library, with its scenario beside it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs, io};

use crate::machine::Statistics;
use crate::scenario::Scenario;

/// The shared library as cargo built it: beside the test's executable, or in its `deps`.
pub fn library_path() -> io::Result<PathBuf> {
    let name = "libsimulated_nvml.so";
    let executable = env::current_exe()?;
    let folders = executable.ancestors().skip(1).take(3);
    let mut places = folders.flat_map(|folder| [folder.join(name), folder.join("deps").join(name)]);

    places.find(|path| path.is_file()).ok_or_else(|| {
        let message = format!(
            "{name} is neither beside {} nor in deps/ there",
            executable.display()
        );
        io::Error::new(io::ErrorKind::NotFound, message)
    })
}

/// A copy of the library in a directory of the test's, and the scenario that it plays.
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

    /// As [`Self::install`], with `symbols` truly missing from the copy, as in the library of an
    /// old driver.
    pub fn install_without(
        directory: &Path,
        scenario: &Scenario,
        symbols: &[&str],
    ) -> io::Result<Self> {
        let mut image = fs::read(library_path()?)?;
        for symbol in symbols {
            hide(&mut image, symbol)?;
        }

        let driver = Self {
            directory: directory.to_owned(),
            library: directory.join("libnvidia-ml.so.1"),
        };

        driver.set(scenario)?;
        fs::write(&driver.library, image)?;

        Ok(driver)
    }

    /// The path to load.
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// Replaces the scenario, in one step, for calls from now on.
    pub fn set(&self, scenario: &Scenario) -> io::Result<()> {
        let fresh = self.directory.join("scenario.json.new");
        fs::write(&fresh, serde_json::to_vec_pretty(scenario)?)?;
        fs::rename(fresh, self.directory.join("scenario.json"))
    }

    /// What the library has counted up to its last init or shutdown; nothing before the first.
    pub fn statistics(&self) -> io::Result<Statistics> {
        match fs::read(self.directory.join("statistics.json")) {
            Ok(text) => Ok(serde_json::from_slice(&text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Statistics::default()),
            Err(error) => Err(error),
        }
    }

    /// Waits until a call of `symbol` hangs, or has hung, by a [`crate::Fault::hang`] of this
    /// driver's scenarios.
    ///
    /// # Errors
    /// None did within `limit`.
    pub fn until_hung(&self, symbol: &str, limit: Duration) -> io::Result<()> {
        self.until("hung", symbol, limit)
    }

    /// Waits until a call of `symbol` has failed by a [`crate::Fault::code`] of this driver's
    /// scenarios.
    ///
    /// # Errors
    /// None did within `limit`.
    pub fn until_failed(&self, symbol: &str, limit: Duration) -> io::Result<()> {
        self.until("failed", symbol, limit)
    }

    fn until(&self, what: &str, symbol: &str, limit: Duration) -> io::Result<()> {
        let (sign, begun) = (
            self.directory.join(format!("{what}-{symbol}")),
            Instant::now(),
        );
        while !sign.exists() {
            if begun.elapsed() > limit {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no call of {symbol} has {what}"),
                ));
            }
            std::thread::sleep(Duration::from_millis(1));
        }

        Ok(())
    }
}

/// Renames a symbol in the image's string table, so that a look-up by its name and hash finds
/// nothing.
fn hide(image: &mut [u8], symbol: &str) -> io::Result<()> {
    let wanted: Vec<u8> = [b"\0", symbol.as_bytes(), b"\0"].concat();
    let mut hidden = false;

    for start in 0..image.len().saturating_sub(wanted.len()) {
        if image[start..].starts_with(&wanted) {
            image[start + 1] = b'X';
            hidden = true;
        }
    }

    let missing = || {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("the library has no symbol {symbol}"),
        )
    };

    hidden.then_some(()).ok_or_else(missing)
}
