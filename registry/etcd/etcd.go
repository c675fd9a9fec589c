// Package etcd is the registry.Store that keeps objects in etcd, in one that
// runs in this process or in a cluster elsewhere. It is the only package
// that talks to etcd.
package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/knarr-dev/knarr/registry"
)

// patience is how long one request may take, so that a client learns within
// its own patience that etcd does not answer.
const patience = 10 * time.Second

// A Store is a registry.Store on etcd. Use Dial, or Start and its Store.
type Store struct {
	c      *clientv3.Client
	leases leases
}

// New returns a store on an etcd client, which it takes over.
func New(c *clientv3.Client) *Store {
	return &Store{c: c, leases: leases{c: c, by: map[time.Duration]lease{}}}
}

// Dial returns a store on the etcd cluster with the given endpoints. It does
// not wait for it to answer.
func Dial(endpoints []string, tlsConfig *tls.Config) (*Store, error) {
	c, err := clientv3.New(clientv3.Config{
		Endpoints:            endpoints,
		TLS:                  tlsConfig,
		DialTimeout:          patience,
		DialKeepAliveTime:    30 * time.Second,
		DialKeepAliveTimeout: 10 * time.Second,
		MaxCallRecvMsgSize:   1 << 30, // a list is as long as it is
		Logger:               logger(),
	})
	if err != nil {
		return nil, fmt.Errorf("dial etcd %v: %w", endpoints, err)
	}
	return New(c), nil
}

// Close ends the connection to etcd.
func (s *Store) Close() error { return s.c.Close() }

// Get is part of registry.Store.
func (s *Store) Get(ctx context.Context, key string) (registry.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	resp, err := s.c.Get(ctx, key)
	if err != nil {
		return registry.Record{}, told("get "+key, err)
	}
	if len(resp.Kvs) == 0 {
		return registry.Record{}, registry.ErrNotFound
	}
	return record(resp.Kvs[0]), nil
}

// List is part of registry.Store.
func (s *Store) List(ctx context.Context, q registry.Query) (registry.Page, error) {
	from := max(q.From, q.Prefix)
	resp, err := s.c.Get(ctx, from,
		clientv3.WithRange(clientv3.GetPrefixRangeEnd(q.Prefix)), clientv3.WithLimit(q.Limit), clientv3.WithRev(q.Rev))
	if err != nil {
		return registry.Page{}, told("list "+q.Prefix, err)
	}
	page := registry.Page{Rev: resp.Header.Revision, More: resp.More, Records: make([]registry.Record, len(resp.Kvs))}
	if q.Rev > 0 {
		page.Rev = q.Rev
	}
	for i, kv := range resp.Kvs {
		page.Records[i] = record(kv)
	}
	return page, nil
}

// Commit is part of registry.Store.
func (s *Store) Commit(ctx context.Context, ops ...registry.Op) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var when []clientv3.Cmp
	var then, otherwise []clientv3.Op
	for _, op := range ops {
		if op.Old != registry.Unchecked {
			when = append(when, clientv3.Compare(clientv3.ModRevision(op.Key), "=", op.Old))
			otherwise = append(otherwise, clientv3.OpGet(op.Key))
		}
		switch {
		case op.Check:
		case op.Value == nil:
			then = append(then, clientv3.OpDelete(op.Key))
		case op.TTL > 0:
			id, err := s.leases.get(ctx, op.TTL)
			if err != nil {
				return 0, told("lease", err)
			}
			then = append(then, clientv3.OpPut(op.Key, string(op.Value), clientv3.WithLease(id)))
		default:
			then = append(then, clientv3.OpPut(op.Key, string(op.Value)))
		}
	}
	resp, err := s.c.Txn(ctx).If(when...).Then(then...).Else(otherwise...).Commit()
	if err != nil {
		return 0, told("commit "+ops[0].Key, err)
	}
	if !resp.Succeeded {
		return 0, conflict(ops, resp)
	}
	return resp.Header.Revision, nil
}

// conflict names the first op whose Old does not hold.
func conflict(ops []registry.Op, resp *clientv3.TxnResponse) error {
	i := 0
	for _, op := range ops {
		if op.Old == registry.Unchecked {
			continue
		}
		kvs := resp.Responses[i].GetResponseRange().Kvs
		i++
		if len(kvs) == 0 && op.Old != 0 {
			return &registry.Conflict{Key: op.Key}
		}
		if len(kvs) > 0 && kvs[0].ModRevision != op.Old {
			r := record(kvs[0])
			return &registry.Conflict{Key: op.Key, Have: &r}
		}
	}
	return fmt.Errorf("commit %s: etcd refused without a reason", ops[0].Key)
}

// Watch is part of registry.Store.
func (s *Store) Watch(ctx context.Context, w registry.Watch, tell func(registry.Batch) error) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	opts := []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithRev(w.After + 1), clientv3.WithProgressNotify()}
	if w.Prev {
		opts = append(opts, clientv3.WithPrevKV())
	}
	for resp := range s.c.Watch(ctx, w.Prefix, opts...) {
		if resp.CompactRevision > 0 {
			return &registry.CompactedError{Rev: resp.CompactRevision}
		}
		if err := resp.Err(); err != nil {
			return told("watch "+w.Prefix, err)
		}
		if err := tell(batch(resp)); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return fmt.Errorf("watch %s: %w", w.Prefix, registry.ErrUnavailable)
}

func batch(resp clientv3.WatchResponse) registry.Batch {
	b := registry.Batch{Rev: resp.Header.Revision, Changes: make([]registry.Change, len(resp.Events))}
	for i, e := range resp.Events {
		c := registry.Change{Key: string(e.Kv.Key), Rev: e.Kv.ModRevision}
		if e.Type == mvccpb.PUT {
			c.Value = e.Kv.Value
		}
		if e.PrevKv != nil {
			r := record(e.PrevKv)
			c.Prev = &r
		}
		b.Changes[i] = c
	}
	if n := len(b.Changes); n > 0 {
		// The header may be ahead of events that are still to come.
		b.Rev = b.Changes[n-1].Rev
	}
	return b
}

// Progress is part of registry.Store.
func (s *Store) Progress(ctx context.Context) error {
	return told("ask for progress", s.c.RequestProgress(clientv3.WithRequireLeader(ctx)))
}

// Revision is part of registry.Store.
func (s *Store) Revision(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	resp, err := s.c.Get(ctx, "/registry/", clientv3.WithCountOnly())
	if err != nil {
		return 0, told("ask for the revision", err)
	}
	return resp.Header.Revision, nil
}

// Compact is part of registry.Store.
func (s *Store) Compact(ctx context.Context, rev int64) error {
	_, err := s.c.Compact(ctx, rev)
	if errors.Is(err, rpctypes.ErrCompacted) {
		return nil // another server was faster
	}
	return told("compact", err)
}

func record(kv *mvccpb.KeyValue) registry.Record {
	return registry.Record{Key: string(kv.Key), Value: kv.Value, Rev: kv.ModRevision}
}

// told says in the registry's terms what went wrong with etcd.
func told(doing string, err error) error {
	var kind error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, rpctypes.ErrCompacted):
		kind = registry.ErrCompacted
	case errors.Is(err, rpctypes.ErrFutureRev):
		kind = registry.ErrFuture
	case errors.Is(err, context.Canceled):
		kind = context.Canceled
	case errors.Is(err, context.DeadlineExceeded), status.Code(err) == codes.DeadlineExceeded:
		return fmt.Errorf("%s: %w: %w", doing, registry.ErrUnavailable, context.DeadlineExceeded)
	case unavailable(err):
		return fmt.Errorf("%s: %w: %w", doing, registry.ErrUnavailable, err)
	default:
		return fmt.Errorf("%s: %w", doing, err)
	}
	return fmt.Errorf("%s: %w", doing, kind)
}

func unavailable(err error) bool {
	if etcdErr, ok := errors.AsType[rpctypes.EtcdError](err); ok {
		return etcdErr.Code() == codes.Unavailable
	}
	return status.Code(err) == codes.Unavailable
}

// leases lets keys that live about equally long share a lease, because a
// lease of its own for each would cost etcd a write more.
type leases struct {
	c  *clientv3.Client
	mu sync.Mutex
	by map[time.Duration]lease
}

type lease struct {
	id    clientv3.LeaseID
	until time.Time // when it is too near its end for another key
	keys  int
}

// A lease is shared for a minute, or by a thousand keys: etcd deletes them
// all in one go.
const (
	leaseShared  = time.Minute
	leaseMaxKeys = 1000
)

func (l *leases) get(ctx context.Context, ttl time.Duration) (clientv3.LeaseID, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	have := l.by[ttl]
	if time.Now().Before(have.until) && have.keys < leaseMaxKeys {
		have.keys++
		l.by[ttl] = have
		return have.id, nil
	}
	shared := min(leaseShared, ttl/20)
	resp, err := l.c.Grant(ctx, int64((ttl + shared).Seconds()))
	if err != nil {
		return 0, err
	}
	l.by[ttl] = lease{id: resp.ID, until: time.Now().Add(shared), keys: 1}
	return resp.ID, nil
}
