//! Converts OpenMetrics text into the older text format of Prometheus (version 0.0.4).
//!
//! The older format differs in three places: a counter's family is named with `_total`, units have
//! no line of their own, and nothing marks the end.

/// Returns `open` in the older format.
pub(super) fn from_open_metrics(open: &str) -> String {
    let mut text = String::with_capacity(open.len());
    let mut lines = open.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }

        if let Some(rest) = line.strip_prefix("# HELP ")
            && let Some((name, help)) = rest.split_once(' ')
            && lines
                .peek()
                .is_some_and(|next| *next == format!("# TYPE {name} counter"))
        {
            lines.next();
            text.extend([
                "# HELP ",
                name,
                "_total ",
                help,
                "\n# TYPE ",
                name,
                "_total counter\n",
            ]);

            continue;
        }

        text.push_str(line);
        text.push('\n');
    }

    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_counters_are_renamed() {
        let open = "# HELP a_b Things.\n# TYPE a_b counter\na_b_total{x=\"1\"} 2\n# HELP g_bytes Size.\n# TYPE g_bytes \
                    gauge\n# UNIT g_bytes bytes\ng_bytes 3\n# EOF\n";
        let classic = "# HELP a_b_total Things.\n# TYPE a_b_total counter\na_b_total{x=\"1\"} 2\n# HELP g_bytes Size.\n\
                       # TYPE g_bytes gauge\ng_bytes 3\n";
        assert_eq!(from_open_metrics(open), classic);
    }
}
