//! Errors by engine and component, and the table of them.

use std::collections::BTreeMap;

use hf_mem_core::engines::Interval;

const GIB: f64 = 1_073_741_824.0;

/// A half of the rows, by model.
///
/// Calibrated constants may follow from rows of the first half only; the second half then tells
/// whether their intervals hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Half {
    /// Rows that constants are fitted to.
    #[default]
    Fit,
    /// Rows that no constant may follow from.
    Test,
}

impl Half {
    /// The half of a model: the lowest bit of its name's FNV-1a hash.
    fn of_model(model: &str) -> Self {
        let hash = model
            .to_ascii_lowercase()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });

        if hash & 1 == 0 { Self::Fit } else { Self::Test }
    }
}

/// A measured figure with ours, in GiB.
#[derive(Clone, Debug)]
struct ScoredFigure {
    name: String,
    half: Half,
    measured: f64,
    likely: f64,
    inside: bool,
    /// The interval's length in percent of the likely figure; `None` for a figure without one.
    width: Option<f64>,
}

/// All rows of one component.
#[derive(Debug, Default)]
pub(crate) struct Scores {
    by: BTreeMap<String, Vec<ScoredFigure>>,
    skipped: BTreeMap<String, Vec<String>>,
    half: Half,
}

impl Scores {
    /// Names the model of the rows that follow, which decides their half.
    pub(crate) fn select_model(&mut self, model: &str) {
        self.half = Half::of_model(model);
    }

    /// Records a measured figure in GiB against our interval; `rounding` is the log's own, in GiB.
    pub(crate) fn gib(
        &mut self,
        component: &str,
        name: &str,
        measured: f64,
        ours: Interval,
        rounding: f64,
    ) {
        let [low, likely, high] =
            [ours.low, ours.likely, ours.high].map(|bytes| bytes.get() as f64 / GIB);
        let inside = measured >= low - rounding && measured <= high + rounding;
        let width = 100.0 * (high - low) / likely.max(1e-9);
        self.row(component, name, measured, likely, inside, Some(width));
    }

    /// Records a measured number against ours.
    pub(crate) fn number(
        &mut self,
        component: &str,
        name: &str,
        measured: f64,
        ours: f64,
        inside: bool,
    ) {
        self.row(component, name, measured, ours, inside, None);
    }

    fn row(
        &mut self,
        component: &str,
        name: &str,
        measured: f64,
        likely: f64,
        inside: bool,
        width: Option<f64>,
    ) {
        let row = ScoredFigure {
            name: name.to_owned(),
            half: self.half,
            measured,
            likely,
            inside,
            width,
        };

        self.by.entry(component.to_owned()).or_default().push(row);
    }

    /// Records a row that cannot be compared, and why.
    pub(crate) fn skip(&mut self, why: &str, name: &str) {
        self.skipped
            .entry(why.to_owned())
            .or_default()
            .push(name.to_owned());
    }

    /// Prints the table, each row beyond 5 % or outside its interval, and the skipped rows.
    pub(crate) fn print(&self, engine: &str) {
        println!("\n{engine}");
        println!(
            "{:<40} {:>5} {:>9} {:>9} {:>8} {:>11} {:>11}",
            "component", "rows", "median", "p95", "width", "fit", "test"
        );

        for (component, rows) in &self.by {
            let errors = sorted(rows.iter().map(ScoredFigure::error));
            let widths = sorted(rows.iter().filter_map(|row| row.width));
            let width = match widths.as_slice() {
                [] => "-".to_owned(),
                widths => format!("{:.1}%", percentile(widths, 50)),
            };

            println!(
                "{component:<40} {:>5} {:>8.2}% {:>8.2}% {width:>8} {:>11} {:>11}",
                rows.len(),
                percentile(&errors, 50),
                percentile(&errors, 95),
                inside_of(rows, Half::Fit),
                inside_of(rows, Half::Test),
            );
        }

        println!("\nlogged by likely figure, lowest to highest:");
        for (component, rows) in &self.by {
            let [fit, test] = [Half::Fit, Half::Test].map(|half| ratios_of(rows, half));
            println!("{component:<40} {fit:>17} {test:>17}");
        }

        println!("\nbeyond 5 %, or outside the interval:");
        for (component, rows) in &self.by {
            for row in rows.iter().filter(|row| row.error() > 5.0 || !row.inside) {
                let outside = if row.inside { "" } else { "  outside" };
                println!(
                    "  {component}: {}: measured {:.4}, ours {:.4} ({:+.1} %){outside}",
                    row.name,
                    row.measured,
                    row.likely,
                    row.signed()
                );
            }
        }

        println!("\nskipped:");
        for (why, names) in &self.skipped {
            println!("  {why} ({}): {}", names.len(), names.join("; "));
        }
    }
}

/// The accuracy that a component must reach; errors and shares in percent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bar {
    component: &'static str,
    median: Option<f64>,
    p95: Option<f64>,
    inside: f64,
}

impl Bar {
    pub(crate) const fn new(
        component: &'static str,
        median: Option<f64>,
        p95: Option<f64>,
        inside: f64,
    ) -> Self {
        Self {
            component,
            median,
            p95,
            inside,
        }
    }
}

impl Scores {
    /// Prints whether each bar is reached, and returns whether all are.
    pub(crate) fn bars(&self, bars: &[Bar]) -> bool {
        let mut all_met = true;
        println!("\nbars:");
        for bar in bars {
            let Some(rows) = self.by.get(bar.component) else {
                println!("  no rows   {}", bar.component);
                continue;
            };

            let errors = sorted(rows.iter().map(ScoredFigure::error));
            let inside = percent_inside(rows.iter());
            let test = rows.iter().filter(|row| row.half == Half::Test);
            let limits = [(bar.median, 50, "median"), (bar.p95, 95, "p95")];
            let inside_test = percent_inside(test);
            let test_met = inside_test.is_nan() || inside_test >= bar.inside;
            let mut met = inside >= bar.inside && test_met;
            let mut text = format!(
                "inside {inside:.0} %, test half {inside_test:.0} %, of {:.0} %",
                bar.inside
            );

            for (limit, percent, name) in limits {
                if let Some(limit) = limit {
                    let found = percentile(&errors, percent);
                    met &= found <= limit;
                    text = format!("{name} {found:.2} % of {limit} %, {text}");
                }
            }

            println!(
                "  {}   {}: {text}",
                if met { "reached" } else { "MISSED " },
                bar.component
            );
            all_met &= met;
        }

        all_met
    }
}

impl ScoredFigure {
    fn signed(&self) -> f64 {
        100.0 * (self.likely - self.measured) / self.measured.abs().max(1e-9)
    }

    fn error(&self) -> f64 {
        self.signed().abs()
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut all: Vec<f64> = values.collect();
    all.sort_by(f64::total_cmp);
    all
}

/// The share of rows inside their interval, in percent; not a number without rows.
fn percent_inside<'r>(rows: impl Iterator<Item = &'r ScoredFigure>) -> f64 {
    let (mut inside, mut all) = (0_u32, 0_u32);
    for row in rows {
        inside += u32::from(row.inside);
        all += 1;
    }

    100.0 * f64::from(inside) / f64::from(all)
}

/// The rows of a half inside their interval: `23 of 24`.
fn inside_of(rows: &[ScoredFigure], half: Half) -> String {
    let of_half: Vec<_> = rows.iter().filter(|row| row.half == half).collect();
    let inside = of_half.iter().filter(|row| row.inside).count();
    format!("{inside} of {}", of_half.len())
}

/// The range of logged by likely figures in a half: `0.93 to 1.14`.
fn ratios_of(rows: &[ScoredFigure], half: Half) -> String {
    let of_half = rows.iter().filter(|row| row.half == half);
    let ratios = sorted(of_half.map(|row| row.measured / row.likely.max(1e-9)));
    match (ratios.first(), ratios.last()) {
        (Some(low), Some(high)) => format!("{low:.2} to {high:.2}"),
        _ => "-".to_owned(),
    }
}

/// The smallest element of `sorted` that at least `percent` of the elements do not exceed.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}
