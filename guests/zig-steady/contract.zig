//! wit/controller.wit for Zig, by hand: what the component model's canonical ABI makes of the world `controller`.
//! Nothing here needs a change, as long as the contract has none: the policy is in policy.zig.

const std = @import("std");
const Iteration = @import("policy.zig").Iteration;

// ---- what a policy uses ----

pub const Error = error{Failed};
pub const Reading = struct { value: f64, age: u32 };
pub const Delay = struct { duration: u32, reason: []const u8 };
pub const Admission = union(enum) { run: u32, wait: Delay };
pub const Batch = struct { items: u32, batch_size: u32, duration: f64, finished: bool };
pub const Outcome = union(enum) { completed: Batch, failed: []const u8, cancelled };
pub const Level = enum(u32) { trace, debug, info, warn, @"error" };

/// The latest reading of a signal, if there is one.
pub fn read(database: []const u8, signal: []const u8) ?Reading {
    var found: extern struct { is_some: u8, value: f64, age: u32 } = undefined;
    imported.read(database.ptr, database.len, signal.ptr, signal.len, &found);
    return if (found.is_some != 0) .{ .value = found.value, .age = found.age } else null;
}

/// A setting, if the operator wrote it. The text lasts until the callback returns.
pub fn setting(key: []const u8) ?[]const u8 {
    var found: extern struct { is_some: u8, ptr: [*]const u8, len: usize } = undefined;
    imported.get(key.ptr, key.len, &found);
    return if (found.is_some != 0) found.ptr[0..found.len] else null;
}

/// A setting that is a whole number below 2^31.
pub fn number(key: []const u8, otherwise: u32) Error!u32 {
    const text = setting(key) orelse return otherwise;
    return std.fmt.parseInt(u31, text, 10) catch fail("setting `{s}` is \"{s}\", not a number", .{ key, text });
}

/// A line for the host's log.
pub fn log(level: Level, message: []const u8) void {
    imported.write(@intFromEnum(level), message.ptr, message.len);
}

/// The answer of `enter` that has the host wait. The reason is cut after 256 bytes.
pub fn wait(duration: u32, comptime reason: []const u8, arguments: anytype) Admission {
    return .{ .wait = .{ .duration = duration, .reason = print(reason, arguments) } };
}

/// Says what went wrong: `return contract.fail("…", .{})`.
pub fn fail(comptime message: []const u8, arguments: anytype) Error {
    failure = print(message, arguments);
    return error.Failed;
}

// ---- what the host calls ----

const imported = struct {
    const Found = *anyopaque;
    extern "tidegate:controller/signals@0.1.0" fn read(d: [*]const u8, dn: usize, s: [*]const u8, sn: usize, found: Found) void;
    extern "tidegate:controller/settings@0.1.0" fn get(key: [*]const u8, len: usize, found: Found) void;
    extern "tidegate:controller/log@0.1.0" fn write(level: u32, message: [*]const u8, len: usize) void;
    extern "[export]tidegate:controller/pacing@0.1.0" fn @"[resource-new]iteration"(it: *Entered) u32;
};

/// What stands behind an iteration's handle.
const Entered = struct { iteration: Iteration, database: []const u8 };

/// An answer in memory. Errors have their text where an admission has its tag.
const Answer = extern struct { is_error: u32 = 0, a: usize = 0, b: usize = 0, c: usize = 0, d: usize = 0 };

const gpa = std.heap.wasm_allocator;
/// What the host passes in a call: forgotten when the next begins.
var passed = std.heap.ArenaAllocator.init(gpa);
var answer: Answer = .{};
var failure: []const u8 = "";
var printed: [256]u8 = undefined;

fn print(comptime format: []const u8, arguments: anytype) []const u8 {
    var writer: std.Io.Writer = .fixed(&printed);
    writer.print(format, arguments) catch {}; // What is too long is cut.
    return writer.buffered();
}

fn failed() *Answer {
    answer = .{ .is_error = 1, .a = @intFromPtr(failure.ptr), .b = failure.len };
    return &answer;
}

fn realloc(old: ?[*]u8, old_len: usize, alignment: usize, len: usize) callconv(.c) [*]u8 {
    const room = passed.allocator().alignedAlloc(u8, .@"8", len) catch @trap();
    if (old) |from| @memcpy(room[0..@min(old_len, len)], from[0..@min(old_len, len)]);
    _ = alignment; // 8 is enough for everything.
    return room.ptr;
}

fn onUpdate(up: [*]const u8, un: usize, dp: [*]const u8, dn: usize, one_shot: u32) callconv(.c) *Answer {
    defer _ = passed.reset(.retain_capacity);
    const iteration = Iteration.onUpdate(up[0..un], dp[0..dn], one_shot != 0) catch return failed();
    const entered = gpa.create(Entered) catch @trap();
    entered.* = .{ .iteration = iteration, .database = gpa.dupe(u8, dp[0..dn]) catch @trap() };
    answer = .{ .a = imported.@"[resource-new]iteration"(entered) };
    return &answer;
}

fn enter(entered: *Entered) callconv(.c) *Answer {
    defer _ = passed.reset(.retain_capacity);
    const admission = entered.iteration.enter(entered.database) catch return failed();
    answer = switch (admission) {
        .run => |target| .{ .a = 0, .b = target },
        .wait => |delay| .{ .a = 1, .b = delay.duration, .c = @intFromPtr(delay.reason.ptr), .d = delay.reason.len },
    };
    return &answer;
}

// A variant's cases share their numbers: `a` and `b` are a batch's items and size, or a text's address and length.
fn exit(entered: *Entered, tag: u32, a: u32, b: u32, duration: f64, finished: u32) callconv(.c) *Answer {
    defer _ = passed.reset(.retain_capacity);
    const outcome: Outcome = switch (tag) {
        0 => .{ .completed = .{ .items = a, .batch_size = b, .duration = duration, .finished = finished != 0 } },
        1 => .{ .failed = @as([*]const u8, @ptrFromInt(a))[0..b] },
        else => .cancelled,
    };
    entered.iteration.exit(outcome) catch return failed();
    answer = .{};
    return &answer;
}

fn drop(entered: *Entered) callconv(.c) void {
    gpa.free(entered.database);
    gpa.destroy(entered);
}

comptime {
    const pacing = "tidegate:controller/pacing@0.1.0#";
    @export(&realloc, .{ .name = "cabi_realloc" });
    @export(&onUpdate, .{ .name = pacing ++ "on-update" });
    @export(&enter, .{ .name = pacing ++ "[method]iteration.enter" });
    @export(&exit, .{ .name = pacing ++ "[method]iteration.exit" });
    @export(&drop, .{ .name = pacing ++ "[dtor]iteration" });
}
