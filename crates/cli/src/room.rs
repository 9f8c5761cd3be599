//! Whether what a command line asks for fits into memory, asked before it is allocated: a failed allocation ends the
//! process without a word.

use gptq_core::Error;

/// Values that x, y or a layer of random codes may have: as many weights as the largest matrices of models have.
const MOST_VALUES: usize = 1 << 31;
/// Bytes of a value of x and y at a time: f64, exact and rounded, beside its own type.
const BYTES: usize = 24;

/// Random x `[rows, k]` and y `[rows, n]` of `of`.
pub(crate) fn for_x_and_y(of: &str, rows: usize, [k, n]: [usize; 2]) -> Result<(), Error> {
    let what = || format!("x or y of {of}");
    let values = rows.checked_mul(k.max(n)).filter(|values| *values <= MOST_VALUES);
    let Some(values) = values else {
        let problem =
            format!("{rows} rows of {k} and {n} values, expected at most {MOST_VALUES}; pass fewer --rows");
        return Err(Error::TensorBytes { what: what(), problem });
    };
    for_bytes(what, values.checked_mul(BYTES), "pass fewer --rows")
}

/// The weights of a layer `[k, n]` that is made up.
pub(crate) fn for_layer([k, n]: [usize; 2]) -> Result<(), Error> {
    match k.checked_mul(n) {
        Some(..=MOST_VALUES) => Ok(()),
        _ => Err(Error::TensorBytes {
            what: format!("the layer {k}x{n}"),
            problem: format!(
                "it has more than {MOST_VALUES} weights, the most that is timed; name a smaller --shape"
            ),
        }),
    }
}

/// So many bytes at once, where they can be counted. That there are as many does not mean that they are free.
pub(crate) fn for_bytes(what: impl Fn() -> String, bytes: Option<usize>, remedy: &str) -> Result<(), Error> {
    let mut memory = Vec::<u8>::new();
    // Or the compiler leaves out what nobody uses.
    let memory = std::hint::black_box(&mut memory);
    match bytes {
        Some(bytes) if memory.try_reserve_exact(bytes).is_ok() => Ok(()),
        _ => {
            let found =
                bytes.map_or_else(|| "more bytes than can be counted".to_owned(), |b| format!("{b} bytes"));
            let problem = format!("it takes {found}, which this machine does not have; {remedy}");
            Err(Error::TensorBytes { what: what(), problem })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_machine_holds_is_refused_before_it_is_allocated() {
        for rows in [1 << 30, 1_000_000_000_000, usize::MAX] {
            let refused = for_x_and_y("layer `a`", rows, [64, 32]).expect_err("too much").to_string();
            let says = ["layer `a`", &rows.to_string(), "2147483648", "--rows"];
            assert!(says.iter().all(|part| refused.contains(part)), "{refused}");
        }
        for shape in [[1 << 20, 1 << 20], [usize::MAX, 2]] {
            let refused = for_layer(shape).expect_err("too much").to_string();
            assert!(refused.contains("--shape") && refused.contains(&shape[0].to_string()), "{refused}");
        }
        for bytes in [Some(usize::MAX), None] {
            let refused = for_bytes(|| "memory".into(), bytes, "ask for less").expect_err("too much");
            assert!(refused.to_string().contains("ask for less"), "{refused}");
        }
        for_x_and_y("layer `a`", 4, [64, 32]).expect("there is room");
        for_layer([8192, 28672]).expect("there is room");
    }
}
