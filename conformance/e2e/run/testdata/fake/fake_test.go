package fake

import (
	"os"
	"testing"
	"time"

	"github.com/onsi/ginkgo/v2"
)

func TestFake(t *testing.T) {
	ginkgo.RunSpecs(t, "Fake suite")
}

// once is true the first time that it is asked of a name, in whichever process.
func once(name string) bool {
	f, err := os.OpenFile(os.Getenv("FAKE_DIR")+"/"+name, os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return false
	}
	return f.Close() == nil
}

var _ = ginkgo.Describe("[sig-fake] Specs", func() {
	ginkgo.It("pass [Conformance]", func() {})
	ginkgo.It("pass too [Conformance]", func() {})
	ginkgo.It("fail [Conformance]", ginkgo.Label("sig-fake", "Conformance"), func() {
		ginkgo.GinkgoWriter.Println("looking at the cluster")
		ginkgo.GinkgoWriter.Println("Jan  1 00:00:00: INFO: At 2026-01-01 - event for pod: {kubelet} Failed: no")
		ginkgo.Fail("expected more\nand got less")
	})
	ginkgo.It("skip [Conformance]", func() { ginkgo.Skip("not on this kind of cluster") })
	ginkgo.It("fail once [Conformance]", func() {
		if once("flaky") {
			ginkgo.Fail("the first time")
		}
	})
	ginkgo.It("hang [Conformance]", func(ctx ginkgo.SpecContext) {
		ginkgo.By("waiting for what never comes")
		<-ctx.Done()
	})
	ginkgo.It("hang deaf to signals [Conformance]", func(ginkgo.SpecContext) {
		ginkgo.By("waiting for what never comes")
		select {}
	})
	ginkgo.It("take a while [Conformance]", func(ctx ginkgo.SpecContext) {
		select {
		case <-ctx.Done():
		case <-time.After(4 * time.Second):
		}
	})
	ginkgo.It("not conform", func() {})
	ginkgo.It("stand alone [Serial] [Conformance]", ginkgo.Serial, func() {})
})

var _ = ginkgo.BeforeSuite(func() {
	if os.Getenv("FAKE_BROKEN") != "" {
		ginkgo.Fail("the cluster is not there")
	}
})
