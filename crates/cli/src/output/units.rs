//! Numbers with units, as a person reads them.

use std::fmt;

/// A number of bytes: `512 B`, `3.74 MiB`.
pub(crate) struct Bytes(pub(crate) usize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (divisor, unit) = match self.0 {
            0..0x400 => return f.pad(&format!("{} B", self.0)),
            0x400..0x10_0000 => (0x400u32, "KiB"),
            0x10_0000..0x4000_0000 => (0x10_0000, "MiB"),
            _ => (0x4000_0000, "GiB"),
        };
        f.pad(&format!("{:.2} {unit}", self.0 as f64 / f64::from(divisor)))
    }
}

/// A duration in seconds: `14 µs`, `2.31 ms`, `1.25 s`.
pub(crate) struct Seconds(pub(crate) f64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&match self.0 {
            seconds if seconds < 1e-6 => "under 1 µs".to_owned(),
            seconds if seconds < 1e-3 => format!("{:.0} µs", seconds * 1e6),
            seconds if seconds < 1.0 => format!("{:.2} ms", seconds * 1e3),
            seconds => format!("{seconds:.2} s"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_in_the_largest_unit_that_they_fill() {
        let shown = [0, 1023, 1024, 3_922_944, 5 << 30].map(|bytes| Bytes(bytes).to_string());
        assert_eq!(shown, ["0 B", "1023 B", "1.00 KiB", "3.74 MiB", "5.00 GiB"]);
        assert_eq!(format!("{:>10}|", Bytes(12)), "      12 B|", "width is obeyed");
    }

    #[test]
    fn seconds_are_shown_in_the_largest_unit_that_they_fill() {
        let shown = [0.0, 0.000_014, 0.002_31, 1.25].map(|seconds| Seconds(seconds).to_string());
        assert_eq!(shown, ["under 1 µs", "14 µs", "2.31 ms", "1.25 s"]);
    }
}
