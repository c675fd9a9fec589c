package etcd

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// A Server is an etcd in this process. Nobody reaches it but by its Store.
type Server struct {
	e     *embed.Etcd
	store *Store
}

// MaxOps is how many writes a commit to a Server may have: all bootstrap
// objects at once.
const MaxOps = 4096

// Sizes that suit a server of one member with an API server around it.
const (
	quota      = 8 << 30  // of the database file
	maxRequest = 16 << 20 // a Txn of bootstrap objects, or a large object's

	snapshots   = 5000 // raft entries between snapshots, which bound memory
	catchUp     = 500  // raft entries kept for a member that is behind
	tick        = 10   // milliseconds; alone, a member has nobody to wait for
	electTicks  = 100  // milliseconds
	peerAddress = "http://localhost:2380"
)

// Start starts an etcd whose data is in dir and waits until it can be used.
func Start(ctx context.Context, dir string) (*Server, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	cfg := embed.NewConfig()
	cfg.Name = "knarr"
	cfg.Dir = dir
	// No listeners: peers and clients are in this process. An address is
	// part of a member's identity all the same.
	addr, err := url.Parse(peerAddress)
	if err != nil {
		return nil, err
	}
	cfg.ListenPeerUrls, cfg.ListenClientUrls = nil, nil
	cfg.AdvertisePeerUrls, cfg.AdvertiseClientUrls = []url.URL{*addr}, []url.URL{*addr}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.TickMs, cfg.ElectionMs = tick, electTicks
	cfg.QuotaBackendBytes, cfg.MaxRequestBytes, cfg.MaxTxnOps = quota, maxRequest, MaxOps
	cfg.SnapshotCount, cfg.SnapshotCatchUpEntries = snapshots, catchUp
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(logger())
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, fmt.Errorf("start etcd in %s: %w", dir, err)
	}
	select {
	case <-e.Server.ReadyNotify():
	case <-ctx.Done():
		e.Close()
		return nil, ctx.Err()
	case err := <-e.Err():
		e.Close()
		return nil, fmt.Errorf("start etcd in %s: %w", dir, err)
	}
	return &Server{e: e, store: New(v3client.New(e.Server))}, nil
}

// Store is the store on this etcd.
func (s *Server) Store() *Store { return s.store }

// Failed tells of an error that ends the server.
func (s *Server) Failed() <-chan error { return s.e.Err() }

// Close stops the server, its data safe on disk.
func (s *Server) Close() {
	if err := s.store.Close(); err != nil {
		slog.Warn("close etcd client", "err", err)
	}
	s.e.Close()
}

// logger hands etcd's warnings to slog.
func logger() *zap.Logger { return zap.New(slogCore{zapcore.WarnLevel}) }

// expected are warnings about what is meant to be: there is no door to this
// etcd, and a new one has no storage version before its first snapshot.
var expected = map[string]bool{
	"Running http and grpc server on single port. This is not recommended for production.": true,
	"simple token is not cryptographically signed":                                         true,
	"exceeded recommended request limit":                                                   true,
	"Failed to detect schema version":                                                      true,
	"failed to update storage version":                                                     true,
}

type slogCore struct{ zapcore.LevelEnabler }

func (c slogCore) With([]zapcore.Field) zapcore.Core { return c }

func (c slogCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) && !expected[e.Message] {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c slogCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(enc)
	}
	level := slog.LevelWarn
	if e.Level >= zapcore.ErrorLevel {
		level = slog.LevelError
	}
	var args []any
	for k, v := range enc.Fields {
		args = append(args, k, v)
	}
	slog.New(slog.Default().Handler()).With("part", "etcd").Log(context.Background(), level, e.Message, args...)
	return nil
}

func (slogCore) Sync() error { return nil }

var _ zapcore.Core = slogCore{}
