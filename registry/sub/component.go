package sub

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/knarr-dev/knarr/registry"
)

// A Component is a part of the control plane that componentstatuses tell of.
type Component struct {
	Name  string
	Check func(ctx context.Context) error // nil where it is well
}

// probeTime is how long a component may take to answer that it is well.
const probeTime = 20 * time.Second

// Components are the ones that the stock server tells of: the scheduler and
// the controllers at their ports on this machine, and the store.
func Components(store registry.Store) []Component {
	// As upstream: who looks at health does not know their certificates.
	client := &http.Client{Timeout: probeTime, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true,
	}}
	return []Component{
		{"controller-manager", healthz(client, "https://127.0.0.1:10257/healthz")},
		{"scheduler", healthz(client, "https://127.0.0.1:10259/healthz")},
		{"etcd-0", func(ctx context.Context) error { _, err := store.Revision(ctx); return err }},
	}
}

func healthz(client *http.Client, url string) func(context.Context) error {
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }() // it was only read
		body, err := io.ReadAll(io.LimitReader(resp.Body, 10<<10))
		switch {
		case err != nil:
			return err
		case resp.StatusCode != http.StatusOK:
			return fmt.Errorf("unhealthy http status code: %d", resp.StatusCode)
		case string(body) != "ok":
			return errors.New(string(body))
		}
		return nil
	}
}

// The kinds that tell how components are.
type (
	componentStatus     = corev1.ComponentStatus
	componentStatusList = corev1.ComponentStatusList
)

// ComponentStatuses is the action that tells how components are.
func ComponentStatuses(components []Component) Action {
	return Action{Resource: corev1.Resource("componentstatuses"), List: func(ctx context.Context) (runtime.Object, error) {
		list := &componentStatusList{Items: make([]componentStatus, len(components))}
		var work sync.WaitGroup
		for i, c := range components {
			work.Go(func() {
				is := corev1.ComponentCondition{Type: corev1.ComponentHealthy, Status: corev1.ConditionTrue, Message: "ok"}
				if err := c.Check(ctx); err != nil {
					is.Status, is.Message = corev1.ConditionFalse, err.Error()
				}
				list.Items[i].Name = c.Name
				list.Items[i].Conditions = []corev1.ComponentCondition{is}
			})
		}
		work.Wait()
		return list, nil
	}}
}
