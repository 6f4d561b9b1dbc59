// The policy: a batch waits while replicas lag behind, and otherwise aims at a target duration.

package main

import "fmt"

const (
	staleMs = 30_000 // A reading older than this says nothing about now.
	waitMs  = 500    // How long to wait before asking again.
)

// Policy is one iteration of one update: it is entered, perhaps several times, until it lets a batch run.
type Policy struct {
	database           string
	targetMs, maxLagMs uint32
}

// OnUpdate makes an iteration. An error holds the update, and is shown.
func OnUpdate(update, database string, oneShot bool) (*Policy, error) {
	targetMs, err := Number("target_ms", 100)
	if err != nil {
		return nil, err
	}
	maxLagMs, err := Number("max_lag_ms", 1_000)
	return &Policy{database, targetMs, maxLagMs}, err
}

// Enter is asked before each batch.
func (p *Policy) Enter() (Admission, error) {
	lag, known := Read(p.database, "replication-lag")
	switch {
	case !known:
		return Run(p.targetMs), nil // Nobody measures it here.
	case lag.Age > staleMs:
		return Run(p.targetMs / 10), nil // Nobody knows: go on, but gently.
	case lag.Value > float64(p.maxLagMs):
		return Wait(waitMs, fmt.Sprintf("replication lag %d ms > %d ms", uint64(lag.Value), p.maxLagMs)), nil
	}
	return Run(p.targetMs), nil
}

// Exit is told how the batch ended.
func (p *Policy) Exit(outcome Outcome) error {
	if outcome.Kind == Failed {
		Log(Warn, "the batch failed: "+outcome.Why)
	}
	return nil
}
