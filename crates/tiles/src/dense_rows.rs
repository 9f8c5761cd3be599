//! From how many rows of x the dense matrix is written: what the option `dense_rows` says.

use std::str::FromStr;

/// Rows of x from which the dense way is taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum DenseRows {
    /// For layers of every size; `usize::MAX` for never.
    Of(usize),
    /// For layers of so many weights, ascending. A layer goes by that of the nearest size.
    At(Vec<(usize, usize)>),
}

impl DenseRows {
    /// For a layer `[k, n]`.
    pub(crate) fn of(&self, k: usize, n: usize) -> usize {
        let weights = k.saturating_mul(n) as f64;
        match self {
            Self::Of(rows) => *rows,
            Self::At(points) => {
                // Nearest as a ratio.
                let distance = |of: usize| (of as f64 / weights).ln().abs();
                let nearest = points.iter().min_by(|a, b| distance(a.0).total_cmp(&distance(b.0)));
                nearest.map_or(usize::MAX, |(_, rows)| *rows)
            }
        }
    }
}

/// `96`, or `4096x4096:72,8192x28672:200`; 0 rows are never.
impl FromStr for DenseRows {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const PROBLEM: &str =
            "write it as a number of rows, or as KxN:ROWS with commas between: 4096x4096:72,8192x28672:200";
        let rows = |text: &str| match text.trim().parse::<usize>() {
            Ok(0) => Ok(usize::MAX),
            Ok(rows) => Ok(rows),
            Err(_) => Err(PROBLEM),
        };
        if !text.contains(':') {
            return rows(text).map(Self::Of);
        }
        let point = |point: &str| -> Result<(usize, usize), &'static str> {
            let (shape, rows_of_shape) = point.split_once(':').ok_or(PROBLEM)?;
            let (k, n) = shape.trim().split_once('x').ok_or(PROBLEM)?;
            let [k, n] = [k, n].map(str::parse::<usize>);
            let weights =
                k.ok().zip(n.ok()).and_then(|(k, n)| k.checked_mul(n)).filter(|&weights| weights > 0);
            Ok((weights.ok_or(PROBLEM)?, rows(rows_of_shape)?))
        };
        let mut points = text.split(',').map(point).collect::<Result<Vec<_>, _>>()?;
        points.sort_unstable();
        Ok(Self::At(points))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_is_for_all_layers_and_measured_ones_are_for_those_of_the_nearest_size() {
        let of = |text: &str, k, n| text.parse::<DenseRows>().map(|rows| rows.of(k, n));
        assert_eq!(of("96", 4096, 4096), Ok(96));
        assert_eq!(of("0", 4096, 4096), Ok(usize::MAX), "never");
        let measured = "8192x28672:200, 4096x4096:72,8192x8192:0";
        assert_eq!(of(measured, 4096, 4096), Ok(72));
        assert_eq!(of(measured, 64, 64), Ok(72), "the smallest");
        assert_eq!(of(measured, 28672, 8192), Ok(200), "the same number of weights");
        assert_eq!(of(measured, 1 << 20, 1 << 20), Ok(200), "the largest");
        assert_eq!(of(measured, 8192, 8192), Ok(usize::MAX), "never at this size");
    }

    #[test]
    fn what_is_neither_is_refused_with_how_to_write_it() {
        for text in
            ["", "many", "-1", "4096:72", "4096x4096:", "4096x4096:72,", "0x4096:72", "4096x4096:72;8x8:1"]
        {
            let problem = text.parse::<DenseRows>().expect_err(text);
            assert!(problem.contains("KxN:ROWS"), "{text}: {problem}");
        }
    }
}
