package critest

import (
	"testing"
	"testing/synctest"
)

func TestMemory(t *testing.T) {
	Test(t, synctest.Test, func(*testing.T) Setup { return Setup{Runtime: New("image"), Image: "image"} })
}
