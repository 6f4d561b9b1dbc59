//! Synapse's own pace: before each iteration a pause, then one batch that aims at a duration. The settings have the names
//! and the defaults of Synapse's `background_updates` section.

const std = @import("std");
const contract = @import("contract.zig");

pub const Iteration = struct {
    /// The pause that is still to be made, in milliseconds; 0 once it was answered.
    pause_ms: u32,
    target_ms: u32,

    pub fn onUpdate(update: []const u8, database: []const u8, one_shot: bool) contract.Error!Iteration {
        _ = .{ update, database, one_shot };
        const sleeps = try flag("sleep_enabled", true);
        const sleep_ms = try contract.number("sleep_duration_ms", 1_000);
        return .{
            .pause_ms = if (sleeps) sleep_ms else 0,
            .target_ms = try contract.number("background_update_duration_ms", 100),
        };
    }

    pub fn enter(self: *Iteration, database: []const u8) contract.Error!contract.Admission {
        _ = database;
        if (self.pause_ms == 0) return .{ .run = self.target_ms };
        defer self.pause_ms = 0;
        return contract.wait(self.pause_ms, "sleep between iterations", .{});
    }

    pub fn exit(self: *Iteration, outcome: contract.Outcome) contract.Error!void {
        _ = self;
        switch (outcome) {
            .failed => |why| contract.log(.warn, why),
            .completed, .cancelled => {},
        }
    }
};

fn flag(key: []const u8, otherwise: bool) contract.Error!bool {
    const text = contract.setting(key) orelse return otherwise;
    if (std.mem.eql(u8, text, "true")) return true;
    if (std.mem.eql(u8, text, "false")) return false;
    return contract.fail("setting `{s}` is \"{s}\", not true or false", .{ key, text });
}
