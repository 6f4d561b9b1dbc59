//! The policy: a batch waits while replicas lag behind, and otherwise aims at a target duration.

const contract = @import("contract.zig");

/// A reading older than this, in milliseconds, says nothing about now.
const stale_ms = 30_000;

/// How long to wait before asking again, in milliseconds.
const wait_ms = 500;

/// One iteration of one update: it is entered, perhaps several times, until it lets a batch run.
pub const Iteration = struct {
    target_ms: u32,
    max_lag_ms: u32,

    /// An error that is returned holds the update; `contract.fail` says what is shown.
    pub fn onUpdate(update: []const u8, database: []const u8, one_shot: bool) contract.Error!Iteration {
        _ = .{ update, database, one_shot };
        return .{
            .target_ms = try contract.number("target_ms", 100),
            .max_lag_ms = try contract.number("max_lag_ms", 1_000),
        };
    }

    pub fn enter(self: *Iteration, database: []const u8) contract.Error!contract.Admission {
        const lag = contract.read(database, "replication-lag") orelse
            return .{ .run = self.target_ms }; // Nobody measures it here.
        if (lag.age > stale_ms) return .{ .run = self.target_ms / 10 }; // Nobody knows: go on, but gently.
        if (lag.value > @as(f64, @floatFromInt(self.max_lag_ms))) {
            const found: u64 = @intFromFloat(lag.value);
            return contract.wait(wait_ms, "replication lag {d} ms > {d} ms", .{ found, self.max_lag_ms });
        }
        return .{ .run = self.target_ms };
    }

    pub fn exit(self: *Iteration, outcome: contract.Outcome) contract.Error!void {
        _ = self;
        switch (outcome) {
            .failed => |why| contract.log(.warn, why),
            .completed, .cancelled => {},
        }
    }
};
