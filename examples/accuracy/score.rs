//! Errors by engine and component, and the table of them.

use std::collections::BTreeMap;

use hf_mem_core::engines::Interval;

const GIB: f64 = 1_073_741_824.0;

/// A measured figure with ours, in GiB.
#[derive(Clone, Debug)]
struct ScoredFigure {
    name: String,
    measured: f64,
    likely: f64,
    inside: bool,
}

/// All rows of one component.
#[derive(Debug, Default)]
pub(crate) struct Scores {
    by: BTreeMap<String, Vec<ScoredFigure>>,
    skipped: BTreeMap<String, Vec<String>>,
}

impl Scores {
    /// Records a measured figure in GiB against our interval; `rounding` is the log's own, in GiB.
    pub(crate) fn gib(
        &mut self,
        component: &str,
        name: &str,
        measured: f64,
        ours: Interval,
        rounding: f64,
    ) {
        let inside = measured >= ours.low.get() as f64 / GIB - rounding
            && measured <= ours.high.get() as f64 / GIB + rounding;
        self.row(
            component,
            name,
            measured,
            ours.likely.get() as f64 / GIB,
            inside,
        );
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
        self.row(component, name, measured, ours, inside);
    }

    fn row(&mut self, component: &str, name: &str, measured: f64, likely: f64, inside: bool) {
        let row = ScoredFigure {
            name: name.to_owned(),
            measured,
            likely,
            inside,
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
            "{:<34} {:>5} {:>9} {:>9} {:>8}",
            "component", "rows", "median", "p95", "inside"
        );

        for (component, rows) in &self.by {
            let mut errors: Vec<f64> = rows.iter().map(ScoredFigure::error).collect();
            errors.sort_by(f64::total_cmp);
            let inside = rows.iter().filter(|row| row.inside).count();

            println!(
                "{component:<34} {:>5} {:>8.2}% {:>8.2}% {:>7.0}%",
                rows.len(),
                percentile(&errors, 50),
                percentile(&errors, 95),
                100.0 * inside as f64 / rows.len().max(1) as f64
            );
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
    /// Prints whether each bar is reached.
    pub(crate) fn bars(&self, bars: &[Bar]) {
        println!("\nbars:");
        for bar in bars {
            let Some(rows) = self.by.get(bar.component) else {
                println!("  no rows   {}", bar.component);
                continue;
            };

            let mut errors: Vec<f64> = rows.iter().map(ScoredFigure::error).collect();
            errors.sort_by(f64::total_cmp);
            let inside = 100.0 * rows.iter().filter(|row| row.inside).count() as f64
                / rows.len().max(1) as f64;
            let limits = [(bar.median, 50, "median"), (bar.p95, 95, "p95")];
            let mut met = inside >= bar.inside;
            let mut text = format!("inside {inside:.0} % of {:.0} %", bar.inside);

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
        }
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

/// The smallest element of `sorted` that at least `percent` of the elements do not exceed.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}
