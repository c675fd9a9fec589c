package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/etcd"
)

// Where the plain handler keeps things in etcd, out of the API server's sight.
const (
	plainPuts  = "/bench/put/"
	plainWatch = "/bench/watch/"
)

// A plainHandler does the least that could be done.
type plainHandler struct {
	store *etcd.Store
	kept  sync.Map // name to bytes
	puts  atomic.Int64
	crowd crowdOf
}

// plain serves a plainHandler until ctx ends.
func plain(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("bench plain", flag.ContinueOnError)
	listen := fs.String("listen", "127.0.0.1:0", "address to serve at")
	server := fs.String("etcd", "", "URL of etcd")
	cert := fs.String("cert", "", "certificate to serve with")
	key := fs.String("key", "", "key of the certificate")
	if err := fs.Parse(args); err != nil {
		return err
	}
	store, err := etcd.Dial([]string{*server}, nil)
	if err != nil {
		return err
	}
	h := &plainHandler{store: store}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("PUT /bytes/{name}", h.keep)
	mux.HandleFunc("GET /bytes/{name}", h.bytes)
	mux.HandleFunc("POST /put", h.put)
	mux.HandleFunc("GET /watch", h.watch)
	srv := &http.Server{Addr: *listen, Handler: mux, TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert}}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { cancel(srv.ListenAndServeTLS(*cert, *key)) }()
	go func() { cancel(h.follow(ctx)) }()
	<-ctx.Done()
	err = context.Cause(ctx)
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(err, srv.Close(), store.Close())
}

// keep keeps the body under a name, for bytes.
func (h *plainHandler) keep(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	h.kept.Store(r.PathValue("name"), body)
}

// bytes writes what is kept.
func (h *plainHandler) bytes(w http.ResponseWriter, r *http.Request) {
	body, ok := h.kept.Load(r.PathValue("name"))
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(body.([]byte)) // nobody is left to tell
}

// put puts the body into etcd and answers with it.
func (h *plainHandler) put(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	key := fmt.Sprintf("%s%010d", plainPuts, h.puts.Add(1))
	if _, err := h.store.Commit(r.Context(), registry.Op{Key: key, Old: registry.Unchecked, Value: body}); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write(body) // nobody is left to tell
}
