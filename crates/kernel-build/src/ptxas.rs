//! What `ptxas -v` prints: the resources of every kernel.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What one kernel takes on one architecture.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Resources {
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes that a thread writes to local memory because registers ran out, and reads back.
    pub spill_bytes: u32,
    /// Bytes of local memory of a thread, spills included.
    pub stack_bytes: u32,
    /// Bytes of shared memory of a block, beside what a launch asks for.
    pub shared_bytes: u32,
    /// Bytes of constant memory, launch parameters included where ptxas counts them.
    pub constant_bytes: u32,
}

/// What a run of ptxas said.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// By the name of the `__global__` function.
    pub(crate) kernels: BTreeMap<String, Resources>,
    /// Lines that say that `wgmma` instructions were serialized.
    pub(crate) serialized: Vec<String>,
    /// Warnings, as they are.
    pub(crate) warnings: Vec<String>,
}

impl Report {
    /// Reads the output of nvcc with `-Xptxas -v`. Lines of other programs are passed over.
    pub(crate) fn parse(output: &str) -> Self {
        let mut report = Self::default();
        let mut entry: Option<String> = None;
        // Properties of a function that a kernel calls stand between those of kernels.
        let mut properties_of_entry = false;
        for line in output.lines() {
            if line.contains("wgmma") && line.contains("serialized") {
                report.serialized.push(line.trim().to_owned());
            } else if line.to_ascii_lowercase().contains("warning") {
                report.warnings.push(line.trim().to_owned());
            }
            if let Some(rest) = line.split("Compiling entry function '").nth(1) {
                let name = rest.split('\'').next().unwrap_or_default().to_owned();
                report.kernels.entry(name.clone()).or_default();
                entry = Some(name);
                continue;
            }
            let Some(resources) = entry.as_ref().and_then(|name| report.kernels.get_mut(name)) else {
                continue;
            };
            if let Some(function) = line.split("Function properties for ").nth(1) {
                properties_of_entry = entry.as_deref() == Some(function.trim());
            } else if line.contains("bytes stack frame") {
                // A function that is called and not inlined spills in its caller's time.
                let spilled =
                    number_before(line, "bytes spill stores") + number_before(line, "bytes spill loads");
                resources.spill_bytes += spilled;
                if properties_of_entry {
                    resources.stack_bytes = number_before(line, "bytes stack frame");
                }
            } else if line.contains("Used ") && line.contains(" registers") {
                resources.registers = number_before(line, "registers");
                resources.shared_bytes = number_before(line, "bytes smem");
                resources.constant_bytes = sum_before(line, "bytes cmem");
            }
        }
        report
    }
}

/// The number that stands before `unit`, or 0.
fn number_before(line: &str, unit: &str) -> u32 {
    line.split(unit).next().filter(|before| before.len() < line.len()).map_or(0, last_number)
}

/// The sum of all numbers before `unit`: constant memory is printed bank by bank.
fn sum_before(line: &str, unit: &str) -> u32 {
    let parts: Vec<&str> = line.split(unit).collect();
    parts.iter().take(parts.len() - 1).map(|before| last_number(before)).sum()
}

fn last_number(text: &str) -> u32 {
    let text = text.trim_end();
    let digits = text.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    // "4096+0 bytes smem", as older versions print, is the sum of its parts.
    let before = &text[..text.len() - digits.len()];
    let more = before.strip_suffix('+').map_or(0, last_number);
    digits.parse::<u32>().unwrap_or(0) + more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_read_kernel_by_kernel() {
        let report = Report::parse(
            "ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'slow' for 'sm_90a'
ptxas info    : Function properties for slow
    968 bytes stack frame, 1656 bytes spill stores, 1808 bytes spill loads
ptxas info    : Used 64 registers, used 1 barriers, 968 bytes cumulative stack size, 4096 bytes smem
ptxas info    : Compile time = 48.132 ms
ptxas info    : Compiling entry function 'fast' for 'sm_90a'
ptxas info    : Function properties for fast
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers, 392 bytes cmem[0], 8 bytes cmem[2]
",
        );
        assert_eq!(
            report.kernels["slow"],
            Resources {
                registers: 64,
                spill_bytes: 1656 + 1808,
                stack_bytes: 968,
                shared_bytes: 4096,
                constant_bytes: 0
            }
        );
        let fast = Resources { registers: 8, constant_bytes: 400, ..Resources::default() };
        assert_eq!(report.kernels["fast"], fast);
        assert!(report.serialized.is_empty() && report.warnings.is_empty());
    }

    #[test]
    fn a_spill_in_a_function_that_a_kernel_calls_is_the_kernels() {
        let report = Report::parse(
            "ptxas info    : Compiling entry function 'k' for 'sm_80'
ptxas info    : Function properties for k
    16 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Function properties for helper
    64 bytes stack frame, 40 bytes spill stores, 40 bytes spill loads
ptxas info    : Used 40 registers, 128+64 bytes smem
",
        );
        let expected = Resources {
            registers: 40,
            spill_bytes: 80,
            stack_bytes: 16,
            shared_bytes: 192,
            constant_bytes: 0,
        };
        assert_eq!(report.kernels["k"], expected);
    }

    #[test]
    fn serialized_wgmma_is_found_and_is_not_a_mere_warning() {
        let line = "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized \
                    due to insufficient register resources for the wgmma pipeline in the function 'k'";
        let report = Report::parse(line);
        assert_eq!((report.serialized.len(), report.warnings.len()), (1, 0));
        assert_eq!(Report::parse("t.cu(3): warning #177-D: variable was declared").warnings.len(), 1);
    }
}
