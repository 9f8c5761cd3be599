#!/bin/sh
# Runs what is held on a GPU, on a machine without Rust, and prints one table: name, result, seconds, note.
# `cargo xtask gpu-bundle` puts this file beside the programs, kernels and fixtures that it needs.
#
#   ./run.sh [STAGE..]    conformance  the contract of a backend, layers of real size, streams, graphs, memory
#                         goldens      what GPTQModel computes from the checkpoints, by library and by command line
#                         sanitizer    a sample of the contract under each tool of compute-sanitizer
#                         bench        speed; the figures are in its log
#                         table        `gptq bench`: seven shapes, M from 1 to 8192, every backend of TABLE by turns;
#                                      table.json, table.csv and roofline.svg beside its log
#                         all of them where none is named
#
#   OUT=FOLDER       for a log of each stage, table.txt and results.tsv; `out` where it is not set
#   LIMIT=SECONDS    the longest that one program may run; 600 where it is not set
#   BACKEND=NAME     only this backend's tests, in the first three stages
#   TABLE=NAMES      the backends of the table, with commas between; those that `gptq backends` lists for the GPU where
#                    it is not set
#   TABLE_OPTIONS=.. more options for `gptq bench`: --rows 1,16 --dtype bf16 --act-order
#
# Ends with 0 when everything passed, with 1 when something failed, and with 2 when there is no GPU to run it on.

set -u

here=$(cd "$(dirname "$0")" && pwd)
out=${OUT:-out}
limit=${LIMIT:-600}
backend=${BACKEND:+$BACKEND/}
tab=$(printf '\t')

usage() {
    sed -n '2,/^$/s/^# \{0,1\}//p' "$here/run.sh"
    exit "$1"
}

for stage in "$@"; do
    case $stage in
        conformance | goldens | sanitizer | bench | table) ;;
        -h | --help) usage 0 ;;
        *)
            printf 'error: there is no stage %s\n\n' "$stage" >&2
            usage 2 >&2
            ;;
    esac
done
[ $# -gt 0 ] || set -- conformance goldens sanitizer bench table

mkdir -p "$out" || exit 2
results=$out/results.tsv
table=$out/table.txt
: >"$results"
: >"$table"

export GPTQ_REQUIRE_DEVICE=1
export GPTQ_FIXTURES="$here/fixtures"
export GPTQ_PROGRAM="$here/bin/gptq"
export GPTQ_KERNELS_DIR="${GPTQ_KERNELS_DIR:-$here/kernels}"

# One line of the table.
print() {
    printf '%-72s  %-6s  %7s  %s\n' "$1" "$2" "$3" "$4" | tee -a "$table"
}

# record NAME RESULT SECONDS NOTE
record() {
    printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" >>"$results"
    print "$1" "$2" "$3" "$4"
}

# Prints the lines that a program has added to the results since there were $1 of them.
print_from() {
    tail -n "+$(($1 + 1))" "$results" | while IFS=$tab read -r name result seconds note; do
        print "$name" "$result" "$seconds" "$note"
    done
}

# Runs a program with its output in the log, and sets $status and $seconds.
run() {
    printf '\n==== %s\n' "$*" >>"$log"
    started=$(date +%s)
    timeout -k 10 "$limit" "$@" >>"$log" 2>&1 </dev/null
    status=$?
    seconds=$(($(date +%s) - started))
}

# Why a program ended as it did.
ending() {
    case $status in
        124) echo "stopped after $limit seconds (LIMIT); see $log" ;;
        13[0-9]) echo "killed by signal $((status - 128)); see $log" ;;
        *) echo "exit code $status; see $log" ;;
    esac
}

# tests NAME ARGUMENT..: a run of bin/gpu, which writes a line for each of its tests.
tests() {
    name=$1
    shift
    before=$(wc -l <"$results")
    GPTQ_TEST_RESULTS=$results run "$here/bin/gpu" "$@"
    print_from "$before"
    new=$(tail -n "+$((before + 1))" "$results")
    case $new in
        '') record "$name" FAIL "$seconds" "no test ran; $(ending)" ;;
        *"${tab}FAIL${tab}"*) ;;
        # It ended before its tests did.
        *) [ "$status" -eq 0 ] || record "$name" FAIL "$seconds" "$(ending)" ;;
    esac
}

# program NAME COMMAND..: one line for a program that passes or fails as a whole; the last line that it prints is the note.
program() {
    name=$1
    shift
    run "$@"
    if [ "$status" -eq 0 ]; then
        record "$name" PASS "$seconds" "$(grep . "$log" | tail -n 1 | tr -d '\t' | cut -c -300)"
    else
        record "$name" FAIL "$seconds" "$(ending)"
    fi
}

conformance() {
    program "gptq-cuda" "$here/bin/smoke"
    for own in "$here"/bin/*-cuda; do
        [ ! -x "$own" ] || program "$(basename "$own")" "$own" --test-threads=1
    done
    tests "bin/gpu" "$backend" --skip /goldens/ --skip /sample/ --skip gpu/is_there
}

goldens() {
    tests "bin/gpu" "${backend}goldens/"
}

# sanitize TOOL SAMPLE NAME OPTION..: this sample of each backend under a tool. Kernels of cuBLASLt are not ours to judge.
sanitize() {
    tool=$1 sample=$2 named=$3
    shift 3
    "$here/bin/gpu" --list | sed -n 's/: test$//p' | grep "^${backend:-.*/}sample/$sample\$" >"$out/samples"
    [ -s "$out/samples" ] || record "$named" SKIP 0 "${backend:-no backend }has no test $sample"
    while read -r test; do
        program "$named ${test%%/*}" compute-sanitizer --tool "$tool" "$@" --kernel-name kns=gptq --error-exitcode 9 \
            "$here/bin/gpu" --exact "$test"
    done <"$out/samples"
}

sanitizer() {
    if ! command -v compute-sanitizer >/dev/null; then
        record "sanitizer" FAIL 0 "compute-sanitizer is not on PATH; it comes with the CUDA toolkit"
        return
    fi
    # Asking a driver for what it lacks, such as the parameter after the last one, is answered by an error.
    sanitize memcheck few_of_every_kind memcheck --report-api-errors no
    # The first product of cuBLASLt fails under this tool.
    sanitize racecheck few_for_own_kernels racecheck
    # What cuBLASLt writes counts as unwritten, so that the kernel which reads that is watched in the first run only, and those
    # that write the dense matrix in the second only.
    sanitize initcheck few_for_own_kernels initcheck
    sanitize initcheck few_of_every_kind initcheck-dense --kernel-name-exclude kns=gptq_dequantize_sum
    sanitize synccheck few_of_every_kind synccheck
}

bench() {
    for bench in "$here"/bin/bench-*; do
        if [ -x "$bench" ]; then
            program "$(basename "$bench")" "$bench"
        else
            record "bench" FAIL 0 "there is no bin/bench-*: the bundle was made without one"
        fi
    done
}

# The backends of the table: those that are named, or all that this GPU can run.
contestants() {
    if [ -n "${TABLE:-}" ]; then
        echo "$TABLE"
        return
    fi
    # A name stands alone at the start of a line; what it says of the GPU is indented below.
    "$GPTQ_PROGRAM" backends --device cuda:0 | awk '
        /^[^ ]/ { name = $1 }
        /^ +on cuda:0 / && !/not usable/ { list = list separator name; separator = "," }
        END { print list }'
}

table() {
    # shellcheck disable=SC2086 # words of their own
    program "gptq bench" "$GPTQ_PROGRAM" bench --device cuda:0 --backend "$(contestants)" --force \
        --report "$out/table.json" --csv "$out/table.csv" --plot "$out/roofline.svg" ${TABLE_OPTIONS:-}
}

cat "$here/bundle.txt"
echo
print name result seconds note
log=$out/gpu.log
: >"$log"
tests gpu --exact gpu/is_there
if ! grep -q "^gpu/is_there${tab}PASS$tab" "$results"; then
    echo "there is no GPU to run this on; see $log" >&2
    exit 2
fi
for stage in "$@"; do
    log=$out/$stage.log
    : >"$log"
    $stage
done

passed=$(grep -c "^[^$tab]*${tab}PASS$tab" "$results")
failed=$(grep -c "^[^$tab]*${tab}FAIL$tab" "$results")
skipped=$(grep -c "^[^$tab]*${tab}SKIP$tab" "$results")
echo "$passed passed, $failed failed, $skipped skipped; logs are in $out" | tee -a "$table"
[ "$failed" -eq 0 ] || exit 1
