// What the lanes of a warp do together. The last lane to arrive does the work for all.

#include <math.h>

#include "memory.h"
#include "state.h"

namespace emulator {

namespace {

Fiber& lane_of(const Warp& warp, uint32_t lane) { return machine->fibers[warp.first + lane]; }

void shuffle_lanes(const Warp& warp, uint32_t lanes) {
    for (uint32_t lane = 0; lane < warp.count; lane++) {
        if ((lanes >> lane & 1) == 0) continue;
        Fiber& fiber = lane_of(warp, lane);
        WarpOperation& operation = fiber.operation;
        const uint32_t operand = operation.in[1], width = operation.in[2];
        const uint32_t segment = lane & ~(width - 1);
        uint32_t source = lane;
        switch (static_cast<Lane>(operation.variant)) {
            case Lane::index: source = segment | (operand & (width - 1)); break;
            case Lane::up: source = operand <= lane - segment ? lane - operand : lane; break;
            case Lane::down: source = operand < segment + width - lane ? lane + operand : lane; break;
            case Lane::exclusive_or: source = (lane ^ operand) < segment + width ? lane ^ operand : lane; break;
        }
        if (source >= warp.count || (lanes >> source & 1) == 0) {
            Fault fault = fault_here(What::undefined_lane, fiber.site);
            fault.thread = fiber.index;
            fault.other_thread = warp.first + source;
            return fail(fault);
        }
        operation.out[0] = lane_of(warp, source).operation.in[0];
    }
}

void ballot_lanes(const Warp& warp, uint32_t lanes) {
    uint32_t votes = 0;
    for (uint32_t lane = 0; lane < warp.count; lane++) {
        if (lanes >> lane & 1) votes |= lane_of(warp, lane).operation.in[0] << lane;
    }
    for (uint32_t lane = 0; lane < warp.count; lane++) {
        if (lanes >> lane & 1) lane_of(warp, lane).operation.out[0] = votes;
    }
}

/// Lane 8m + r points to row r of matrix m. Lane 4r + q receives the elements 2q and 2q + 1 of row r (PTX ISA,
/// "ldmatrix"), or, transposed, those of column r.
void load_matrices(const Warp& warp, uint32_t matrices, bool transposed) {
    for (uint32_t matrix = 0; matrix < matrices; matrix++) {
        uint16_t elements[8][8];
        for (uint32_t row = 0; row < 8; row++) {
            Fiber& fiber = lane_of(warp, matrix * 8 + row);
            Fiber* caller = machine->current;
            machine->current = &fiber;
            check_shared(fiber.operation.row, 16, Access::read, fiber.site);
            machine->current = caller;
            memcpy(elements[row], fiber.operation.row, 16);
        }
        for (uint32_t lane = 0; lane < kWarp; lane++) {
            const uint32_t row = lane / 4, pair = lane % 4 * 2;
            const uint32_t low = transposed ? elements[pair][row] : elements[row][pair];
            const uint32_t high = transposed ? elements[pair + 1][row] : elements[row][pair + 1];
            lane_of(warp, lane).operation.out[matrix] = low | high << 16;
        }
    }
}

float element_value(uint32_t bits, Element element) {
    if (element == Element::bf16) return __uint_as_float(bits << 16);
    const uint16_t half = static_cast<uint16_t>(bits);
    _Float16 value;
    memcpy(&value, &half, sizeof value);
    return static_cast<float>(value);
}

/// Fragments of m16n8k16 and m16n8k8 (PTX ISA, "Matrix Fragments for mma"): lane 4g + q holds, of A, the rows g and
/// g + 8 and the columns 2q, 2q + 1 (and 8 more to the right); of B, column g and rows 2q, 2q + 1 (and 8 below); of C,
/// rows g and g + 8 and columns 2q, 2q + 1.
void multiply_fragments(const Warp& warp, uint32_t k, Element element) {
    double a[16][16] = {}, b[16][8] = {};
    for (uint32_t lane = 0; lane < kWarp; lane++) {
        const uint32_t* in = lane_of(warp, lane).operation.in;
        const uint32_t g = lane / 4, q = lane % 4;
        for (uint32_t half = 0; half < 2; half++) {
            for (uint32_t i = 0; i < k / 4; i++) {
                a[g + i % 2 * 8][q * 2 + half + i / 2 * 8] = element_value(in[i] >> (16 * half) & 0xffff, element);
            }
            for (uint32_t i = 0; i < k / 8; i++) {
                b[q * 2 + half + i * 8][g] = element_value(in[k / 4 + i] >> (16 * half) & 0xffff, element);
            }
        }
    }
    for (uint32_t lane = 0; lane < kWarp; lane++) {
        float* c = lane_of(warp, lane).operation.accumulators;
        for (uint32_t i = 0; i < 4; i++) {
            const uint32_t row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
            double sum = c[i];
            for (uint32_t at = 0; at < k; at++) sum += a[row][at] * b[at][column];
            c[i] = static_cast<float>(sum);
        }
    }
}

void take_place(Warp& warp, uint32_t lanes, const WarpOperation& operation) {
    const uint32_t whole = warp.count == kWarp ? 0xffffffffu : (1u << warp.count) - 1;
    switch (operation.kind) {
        case WarpOperation::Kind::none: break;
        case WarpOperation::Kind::barrier:
            // A barrier of some lanes orders only those: an epoch of the whole warp would hide races of the others.
            if ((operation.mask & whole) == whole) warp.epoch++;
            break;
        case WarpOperation::Kind::shuffle: shuffle_lanes(warp, lanes); break;
        case WarpOperation::Kind::ballot: ballot_lanes(warp, lanes); break;
        case WarpOperation::Kind::load_matrix:
            load_matrices(warp, operation.variant & 7, operation.variant & 8);
            break;
        case WarpOperation::Kind::multiply:
            multiply_fragments(warp, operation.variant & 31, static_cast<Element>(operation.variant >> 5));
            break;
    }
}

/// Lets the operation that `leader` waits for take place, where all its lanes are there.
void complete(Warp& warp, const Fiber& leader) {
    // Registers of a product or of ldmatrix come from all 32 lanes, and an exited one has none.
    const bool collective = leader.operation.kind >= WarpOperation::Kind::load_matrix;
    const uint32_t lanes = collective ? leader.operation.mask : leader.operation.mask & warp.live;
    if ((warp.waiting & lanes) != lanes) return;
    for (uint32_t lane = 0; lane < warp.count; lane++) {
        const WarpOperation& other = lane_of(warp, lane).operation;
        const bool takes_part = lanes >> lane & 1;
        if (takes_part && (other.kind != leader.operation.kind || other.mask != leader.operation.mask ||
                           other.variant != leader.operation.variant)) {
            return;
        }
    }
    take_place(warp, lanes, leader.operation);
    if (machine->failed) return;
    warp.waiting &= ~lanes;
    for (uint32_t lane = 0; lane < warp.count; lane++) {
        if (lanes >> lane & 1) make_ready(lane_of(warp, lane));
    }
}

/// Waits until the lanes of the fiber's operation are there, and returns when it took place.
void meet(const void* site) {
    Fiber& me = *machine->current;
    Warp& warp = machine->warps[me.warp];
    me.site = site;
    if ((me.operation.mask >> me.lane & 1) == 0) {
        fail(fault_here(What::divergent_warp, site));
        return;
    }
    me.state = State::at_warp_operation;
    warp.waiting |= 1u << me.lane;
    complete(warp, me);
    // The last to arrive waits too: it was made ready with the others, and any of them may go first.
    wait();
}

}  // namespace

void leave_warp(const Fiber& fiber) {
    Warp& warp = machine->warps[fiber.warp];
    warp.live &= ~(1u << fiber.lane);
    for (uint32_t lane = 0; lane < warp.count; lane++) {
        if (warp.waiting >> lane & 1) complete(warp, lane_of(warp, lane));
    }
}

void warp_barrier(uint32_t mask) {
    WarpOperation& operation = machine->current->operation;
    operation.kind = WarpOperation::Kind::barrier;
    operation.mask = mask;
    operation.variant = 0;
    meet(GPTQ_CALL_SITE);
}

uint32_t shuffle(Lane mode, uint32_t mask, uint32_t value, uint32_t operand, uint32_t width) {
    WarpOperation& operation = machine->current->operation;
    operation.kind = WarpOperation::Kind::shuffle;
    operation.mask = mask;
    operation.variant = static_cast<uint32_t>(mode);
    operation.in[0] = value;
    operation.in[1] = operand;
    operation.in[2] = width;
    meet(GPTQ_CALL_SITE);
    return operation.out[0];
}

uint32_t ballot(uint32_t mask, bool predicate) {
    WarpOperation& operation = machine->current->operation;
    operation.kind = WarpOperation::Kind::ballot;
    operation.mask = mask;
    operation.variant = 0;
    operation.in[0] = predicate ? 1 : 0;
    meet(GPTQ_CALL_SITE);
    return operation.out[0];
}

void load_matrix(uint32_t* to, const void* row, uint32_t matrices, bool transposed) {
    WarpOperation& operation = machine->current->operation;
    operation.kind = WarpOperation::Kind::load_matrix;
    operation.mask = 0xffffffffu;
    operation.variant = matrices | (transposed ? 8 : 0);
    operation.row = static_cast<const char*>(row);
    meet(GPTQ_CALL_SITE);
    memcpy(to, operation.out, matrices * sizeof(uint32_t));
}

void multiply(Element element, uint32_t k, float* c, const uint32_t* a, const uint32_t* b) {
    WarpOperation& operation = machine->current->operation;
    operation.kind = WarpOperation::Kind::multiply;
    operation.mask = 0xffffffffu;
    operation.variant = k | static_cast<uint32_t>(element) << 5;
    memcpy(operation.in, a, k / 4 * sizeof(uint32_t));
    memcpy(operation.in + k / 4, b, k / 8 * sizeof(uint32_t));
    operation.accumulators = c;
    meet(GPTQ_CALL_SITE);
}

}  // namespace emulator
