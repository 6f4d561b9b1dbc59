// wit/controller.wit for Go, by hand: what the component model's canonical ABI makes of the world `controller`.
// Nothing here needs a change, as long as the contract has none: the policy is in policy.go.

package main

import (
	"fmt"
	"strconv"
	"strings"
	"unsafe"
)

// ---- what a policy uses ----

// Reading is what was measured last: a value, and how many milliseconds ago.
type Reading struct {
	Value float64
	Age   uint32
}

// Admission is the answer of Enter: Run or Wait.
type Admission struct {
	waits  bool
	ms     uint32
	reason string
}

// Run lets a batch run that aims at so many milliseconds.
func Run(ms uint32) Admission { return Admission{ms: ms} }

// Wait has the host wait for so many milliseconds, and enter again. Operators see the reason.
func Wait(ms uint32, reason string) Admission { return Admission{true, ms, reason} }

// Kind of outcome.
type Kind uint32

// How a batch can end.
const (
	Completed Kind = iota
	Failed
	Cancelled
)

// Outcome says how a batch ended: the numbers where it completed, Why where it failed.
type Outcome struct {
	Kind             Kind
	Items, BatchSize uint32
	DurationMs       float64
	Finished         bool
	Why              string
}

// Level of a line of the log.
type Level uint32

// Levels of the log.
const (
	Trace Level = iota
	Debug
	Info
	Warn
	Error
)

// Read gives the latest reading of a signal, if there is one.
func Read(database, signal string) (Reading, bool) {
	var found struct {
		isSome uint8
		value  float64
		age    uint32
	}
	d, s := unsafe.Pointer(unsafe.StringData(database)), unsafe.Pointer(unsafe.StringData(signal))
	signalsRead(d, uint32(len(database)), s, uint32(len(signal)), unsafe.Pointer(&found))
	return Reading{found.value, found.age}, found.isSome != 0
}

// Setting gives what the operator wrote below [controller.settings], if anything.
func Setting(key string) (string, bool) {
	var found struct {
		isSome uint8
		ptr    uint32
		len    uint32
	}
	settingsGet(unsafe.Pointer(unsafe.StringData(key)), uint32(len(key)), unsafe.Pointer(&found))
	if found.isSome == 0 {
		return "", false
	}
	return text(found.ptr, found.len), true
}

// Number gives a setting that is a whole number below 2^31.
func Number(key string, otherwise uint32) (uint32, error) {
	written, known := Setting(key)
	if !known {
		return otherwise, nil
	}
	number, err := strconv.ParseUint(written, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("setting `%s` is %q, not a number", key, written)
	}
	return uint32(number), nil
}

// Log writes a line to the host's log.
func Log(level Level, message string) {
	logWrite(uint32(level), unsafe.Pointer(unsafe.StringData(message)), uint32(len(message)))
}

// ---- what the host calls ----

//go:wasmimport tidegate:controller/signals@0.1.0 read
func signalsRead(database unsafe.Pointer, databaseLen uint32, signal unsafe.Pointer, signalLen uint32, found unsafe.Pointer)

//go:wasmimport tidegate:controller/settings@0.1.0 get
func settingsGet(key unsafe.Pointer, keyLen uint32, found unsafe.Pointer)

//go:wasmimport tidegate:controller/log@0.1.0 write
func logWrite(level uint32, message unsafe.Pointer, messageLen uint32)

//go:wasmimport [export]tidegate:controller/pacing@0.1.0 [resource-new]iteration
func newHandle(iteration uint32) uint32

var (
	// What the host passes in a call: kept from the collector until it was read.
	passed [][]byte
	// Iterations by the number that the host knows them by.
	iterations = map[uint32]*Policy{}
	last       uint32
	// The answer of the last call, and the text in it.
	answer     [5]uint32
	answerText string
)

//go:wasmexport cabi_realloc
func realloc(old unsafe.Pointer, oldLen, align, length uint32) unsafe.Pointer {
	room := make([]byte, length+8) // Never empty; Go aligns this much to 8.
	copy(room, unsafe.Slice((*byte)(old), oldLen))
	passed = append(passed, room)
	return unsafe.Pointer(&room[0])
}

//go:wasmexport tidegate:controller/pacing@0.1.0#on-update
func onUpdate(update, updateLen, database, databaseLen, oneShot uint32) unsafe.Pointer {
	defer forget()
	policy, err := OnUpdate(text(update, updateLen), text(database, databaseLen), oneShot != 0)
	if err != nil {
		return failed(err)
	}
	last++
	iterations[last] = policy
	return answered(0, newHandle(last))
}

//go:wasmexport tidegate:controller/pacing@0.1.0#[method]iteration.enter
func enter(iteration uint32) unsafe.Pointer {
	defer forget()
	admission, err := iterations[iteration].Enter()
	if err != nil {
		return failed(err)
	}
	if !admission.waits {
		return answered(0, 0, admission.ms)
	}
	return answeredWith(admission.reason, 0, 1, admission.ms)
}

// A variant's cases share their numbers: a and b are a batch's items and size, or a text's address and length.
//
//go:wasmexport tidegate:controller/pacing@0.1.0#[method]iteration.exit
func exit(iteration, tag, a, b uint32, duration float64, finished uint32) unsafe.Pointer {
	defer forget()
	outcome := Outcome{Kind: Kind(tag)}
	switch outcome.Kind {
	case Completed:
		outcome.Items, outcome.BatchSize, outcome.DurationMs, outcome.Finished = a, b, duration, finished != 0
	case Failed:
		outcome.Why = text(a, b)
	}
	if err := iterations[iteration].Exit(outcome); err != nil {
		return failed(err)
	}
	return answered(0)
}

//go:wasmexport tidegate:controller/pacing@0.1.0#[dtor]iteration
func drop(iteration uint32) { delete(iterations, iteration) }

func text(ptr, length uint32) string {
	return strings.Clone(unsafe.String((*byte)(unsafe.Pointer(uintptr(ptr))), length))
}

func forget() { passed = passed[:0] }

func answered(numbers ...uint32) unsafe.Pointer {
	answer = [5]uint32{}
	copy(answer[:], numbers)
	return unsafe.Pointer(&answer)
}

// The text's address and length come behind the numbers.
func answeredWith(text string, numbers ...uint32) unsafe.Pointer {
	answerText = text
	address := uint32(uintptr(unsafe.Pointer(unsafe.StringData(answerText))))
	return answered(append(numbers, address, uint32(len(text)))...)
}

func failed(err error) unsafe.Pointer { return answeredWith(err.Error(), 1) }

func main() {}
