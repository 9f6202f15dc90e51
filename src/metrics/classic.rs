//! OpenMetrics text in Prometheus's older format (0.0.4): there a counter is named with its `_total`, and units and the
//! end are not told.

/// The same metrics.
pub fn classic(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let counters: Vec<&str> = open_metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    for line in open_metrics.lines() {
        if line.starts_with("# UNIT ") || line == "# EOF" {
            continue;
        }
        let named =
            ["# HELP ", "# TYPE "].into_iter().find_map(|word| Some((word, line.strip_prefix(word)?)));
        match named.and_then(|(word, rest)| Some((word, rest.split_once(' ')?))) {
            Some((word, (name, rest))) if counters.contains(&name) => {
                text.push_str(&format!("{word}{name}_total {rest}\n"));
            }
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_described_by_the_name_of_their_samples() {
        let text = "# HELP a_b Help of it.\n# TYPE a_b counter\na_b_total{c=\"d\"} 1\n# HELP g_seconds G.\n\
                    # TYPE g_seconds gauge\n# UNIT g_seconds seconds\ng_seconds 2\n# EOF\n";
        let expected = "# HELP a_b_total Help of it.\n# TYPE a_b_total counter\na_b_total{c=\"d\"} 1\n\
                        # HELP g_seconds G.\n# TYPE g_seconds gauge\ng_seconds 2\n";
        assert_eq!(classic(text), expected);
    }
}
