//go:build integration

package server_test

import "testing"

// TestTenThousandIdleWatches is TestIdleWatches as large as it is to hold. It
// takes long with the race detector.
func TestTenThousandIdleWatches(t *testing.T) { idleWatches(t, 40) }
