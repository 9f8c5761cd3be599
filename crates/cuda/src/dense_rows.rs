//! From how many rows of x a backend writes the dense matrix and leaves the product to cuBLASLt: what its option `dense_rows`
//! says.

use std::str::FromStr;

use gptq_core::backend::{BackendId, Options};
use gptq_core::{Error, Result};

/// Rows of x from which the dense way is taken, as `gptq tune` writes them: `96`, or `4096x4096:72,8192x28672:200`; 0 rows are
/// never.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DenseRows {
    /// For layers of every size; `None` for never.
    Of(Option<usize>),
    /// For layers of so many weights, ascending. A layer goes by that of the nearest size.
    At(Vec<(usize, Option<usize>)>),
}

impl DenseRows {
    /// What the option `name` of a backend says, or `None` where it was not set.
    ///
    /// # Errors
    /// [`Error::Option`] with how to write it.
    pub fn read(options: &Options, backend: BackendId, name: &str) -> Result<Option<Self>> {
        let Some(text) = options.read::<String>(backend, name)? else { return Ok(None) };
        let refused = |problem: &str| Error::Option {
            key: format!("{backend}.{name}"),
            problem: format!("`{text}` is neither a number nor a list: {problem}"),
        };
        text.parse().map(Some).map_err(refused)
    }

    /// For a layer `[k, n]`: `None` is never.
    pub fn of(&self, k: usize, n: usize) -> Option<usize> {
        let weights = k.saturating_mul(n) as f64;
        match self {
            Self::Of(rows) => *rows,
            Self::At(points) => {
                // Nearest as a ratio.
                let distance = |of: usize| (of as f64 / weights).ln().abs();
                let nearest = points.iter().min_by(|a, b| distance(a.0).total_cmp(&distance(b.0)));
                nearest.and_then(|(_, rows)| *rows)
            }
        }
    }
}

impl FromStr for DenseRows {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        const PROBLEM: &str =
            "write it as a number of rows, or as KxN:ROWS with commas between: 4096x4096:72,8192x28672:200";
        let rows = |text: &str| match text.trim().parse::<usize>() {
            Ok(rows) => Ok((rows > 0).then_some(rows)),
            Err(_) => Err(PROBLEM),
        };
        if !text.contains(':') {
            return rows(text).map(Self::Of);
        }
        let point = |point: &str| -> std::result::Result<(usize, Option<usize>), &'static str> {
            let (shape, rows_of_shape) = point.split_once(':').ok_or(PROBLEM)?;
            let (k, n) = shape.trim().split_once('x').ok_or(PROBLEM)?;
            let [k, n] = [k, n].map(str::parse::<usize>);
            let weights =
                k.ok().zip(n.ok()).and_then(|(k, n)| k.checked_mul(n)).filter(|&weights| weights > 0);
            Ok((weights.ok_or(PROBLEM)?, rows(rows_of_shape)?))
        };
        let mut points = text.split(',').map(point).collect::<std::result::Result<Vec<_>, _>>()?;
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
        assert_eq!(of("96", 4096, 4096), Ok(Some(96)));
        assert_eq!(of("0", 4096, 4096), Ok(None), "never");
        let measured = "8192x28672:200, 4096x4096:72,8192x8192:0";
        assert_eq!(of(measured, 4096, 4096), Ok(Some(72)));
        assert_eq!(of(measured, 64, 64), Ok(Some(72)), "the smallest");
        assert_eq!(of(measured, 28672, 8192), Ok(Some(200)), "the same number of weights");
        assert_eq!(of(measured, 1 << 20, 1 << 20), Ok(Some(200)), "the largest");
        assert_eq!(of(measured, 8192, 8192), Ok(None), "never at this size");
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

    #[test]
    fn an_option_is_read_or_refused_by_its_name() {
        let mine = BackendId::new("mine");
        let read = |text: &str| {
            let mut options = Options::default();
            options.set_assignment(text).unwrap();
            DenseRows::read(&options, mine, "dense_rows").map_err(|error| error.to_string())
        };
        assert_eq!(read("mine.other=1"), Ok(None));
        assert_eq!(read("mine.dense_rows=7"), Ok(Some(DenseRows::Of(Some(7)))));
        let refused = read("mine.dense_rows=many").expect_err("no number");
        for part in ["mine.dense_rows", "`many`", "KxN:ROWS"] {
            assert!(refused.contains(part), "{part}: {refused}");
        }
    }
}
