// So many items a second and no more, on average: after a batch the update rests until what it did is within its budget.

package main

import (
	"errors"
	"fmt"
	"math"
)

var (
	owedMs float64 // How long the next batch has to wait.
	itemMs float64 // How long an item took in the last batch; 0 where nothing is known.
)

// Policy is one iteration of one update: it is entered, perhaps several times, until it lets a batch run.
type Policy struct{ itemsPerSecond, targetMs uint32 }

// OnUpdate makes an iteration. An error holds the update, and is shown.
func OnUpdate(update, database string, oneShot bool) (*Policy, error) {
	itemsPerSecond, err := Number("items_per_second", 1_000)
	if err != nil {
		return nil, err
	}
	if itemsPerSecond == 0 {
		return nil, errors.New("setting `items_per_second` is 0: nothing would ever run")
	}
	if oneShot {
		owedMs = 0 // One go, whose items nobody counts.
	}
	targetMs, err := Number("target_ms", 100)
	return &Policy{itemsPerSecond, targetMs}, err
}

// Enter is asked before each batch.
func (p *Policy) Enter() (Admission, error) {
	if owedMs >= 1 {
		rest := uint32(math.Min(math.Ceil(owedMs), 3_600_000))
		owedMs = 0
		return Wait(rest, fmt.Sprintf("budget of %d items a second", p.itemsPerSecond)), nil
	}
	// Not more than a second's worth at once.
	mostMs := itemMs * float64(p.itemsPerSecond)
	if itemMs > 0 && mostMs < float64(p.targetMs) {
		return Run(uint32(mostMs)), nil
	}
	return Run(p.targetMs), nil
}

// Exit is told how the batch ended.
func (p *Policy) Exit(outcome Outcome) error {
	if outcome.Kind == Failed {
		Log(Warn, "the batch failed: "+outcome.Why)
	}
	if outcome.Kind != Completed || outcome.Items == 0 {
		return nil
	}
	items := float64(outcome.Items)
	itemMs = outcome.DurationMs / items
	owedMs = math.Max(0, items*1_000/float64(p.itemsPerSecond)-outcome.DurationMs)
	return nil
}
