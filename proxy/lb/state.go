package lb

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// MaxServices is how many Services a table may have, so that their numbers
// index an array in the kernel.
const MaxServices = 1 << 16

// An Owner names what a Plan is for.
type Owner struct{ Kind, Namespace, Name string }

// A State knows what the maps hold and what they should hold, and which few
// entries may differ. A change of one service costs what that service is
// worth, however many others there are.
//
// It is not safe for use by several goroutines.
type State struct {
	have, want Table
	plans      map[Owner][]held
	bids       map[Frontend][]bid // best first
	protos     map[ID]Proto
	users      map[ID]int // how many frontends in have stand for it

	fronts map[Frontend]bool // where have and want may differ
	ids    map[ID]bool
	last   ID // given most recently
}

// held is a claim as it stands in the table.
type held struct {
	Claim

	id ID
}

// bid is the wish of an owner to have a frontend.
type bid struct {
	owner   Owner
	created time.Time
	entry   Entry
}

// NewState starts from what the maps hold already, all of which goes with the
// next Sync unless it is asked for until then.
func NewState(have Table) *State {
	s := &State{
		have: have, want: NewTable(),
		plans: map[Owner][]held{}, bids: map[Frontend][]bid{}, protos: map[ID]Proto{}, users: map[ID]int{},
		fronts: map[Frontend]bool{}, ids: map[ID]bool{},
	}
	for f, e := range have.Frontends {
		s.fronts[f] = true
		s.protos[e.Service] = f.Proto
		s.users[e.Service]++
	}
	for id := range have.Services {
		s.ids[id] = true
	}
	return s
}

// Want is the table that the maps should hold. It must not be changed.
func (s *State) Want() Table { return s.want }

// Set replaces what owner asks for. A plan without claims ends it. It fails
// where there are too many services; the rest of the plan holds all the same.
func (s *State) Set(owner Owner, p Plan) error {
	var errs []error
	before := s.plans[owner]
	after := make([]held, 0, len(p.Claims))
	for _, c := range p.Claims {
		id, err := s.number(before, c)
		if err != nil {
			errs = append(errs, fmt.Errorf("plan %s %s/%s: %w", owner.Kind, owner.Namespace, owner.Name, err))
			continue
		}
		s.want.Services[id] = c.Service
		s.protos[id] = c.Proto
		s.ids[id] = true
		after = append(after, held{c, id})
	}
	for _, h := range before {
		if !slices.ContainsFunc(after, func(a held) bool { return a.id == h.id }) {
			delete(s.want.Services, h.id)
			s.ids[h.id] = true
		}
	}
	s.bid(owner, p.Created, before, after)
	if s.plans[owner] = after; len(after) == 0 {
		delete(s.plans, owner)
	}
	return errors.Join(errs...)
}

// number finds the number for c: the one it has, or had in an earlier life,
// else a new one. A claim that begins or ends to remember its clients counts
// as another, so that what was remembered once is never used again.
func (s *State) number(before []held, c Claim) (ID, error) {
	for _, h := range before {
		if h.Name == c.Name && sticky(h.Service) == sticky(c.Service) {
			return h.id, nil
		}
	}
	if id := s.earlier(c); id != 0 && sticky(s.have.Services[id]) == sticky(c.Service) {
		return id, nil
	}
	for range MaxServices {
		if s.last++; s.last >= MaxServices {
			s.last = 1
		}
		_, has := s.have.Services[s.last]
		_, wants := s.want.Services[s.last]
		if !has && !wants {
			return s.last, nil
		}
	}
	return 0, fmt.Errorf("more than %d service ports", MaxServices-1)
}

// earlier is the number that c goes by in the maps, where nothing but c does:
// the frontends of another must not come to its backends even for a moment.
func (s *State) earlier(c Claim) ID {
	uses := map[ID]int{}
	for f := range c.Frontends {
		if e, ok := s.have.Frontends[f]; ok {
			uses[e.Service]++
		}
	}
	for _, id := range slices.Sorted(maps.Keys(uses)) {
		if _, taken := s.want.Services[id]; !taken && uses[id] == s.users[id] {
			return id
		}
	}
	return 0
}

func sticky(s Service) bool { return s.Affinity > 0 }

// bid takes back the owner's bids for frontends and makes the new ones.
func (s *State) bid(owner Owner, created time.Time, before, after []held) {
	touched := map[Frontend]bool{}
	for _, h := range before {
		for f := range h.Frontends {
			touched[f] = true
			s.bids[f] = slices.DeleteFunc(s.bids[f], func(b bid) bool { return b.owner == owner })
		}
	}
	for _, h := range after {
		for f, flags := range h.Frontends {
			touched[f] = true
			s.bids[f] = append(s.bids[f], bid{owner, created, Entry{h.id, flags}})
		}
	}
	for f := range touched {
		s.fronts[f] = true
		bids := s.bids[f]
		if len(bids) == 0 {
			delete(s.bids, f)
			delete(s.want.Frontends, f)
			continue
		}
		slices.SortStableFunc(bids, elderFirst)
		s.want.Frontends[f] = bids[0].entry
	}
}

func elderFirst(a, b bid) int {
	return cmp.Or(
		a.created.Compare(b.created), cmp.Compare(a.owner.Kind, b.owner.Kind),
		cmp.Compare(a.owner.Namespace, b.owner.Namespace), cmp.Compare(a.owner.Name, b.owner.Name),
	)
}

// A Change is one step from one table to another: a put where the value is
// there, else a deletion. It is of a service where ID is not 0.
type Change struct {
	ID      ID
	Service *Service

	Frontend Frontend
	Entry    *Entry
}

func (c Change) String() string {
	switch {
	case c.ID != 0 && c.Service != nil:
		return fmt.Sprintf("put service of %d backends", len(c.Service.Backends))
	case c.ID != 0:
		return "delete service"
	case c.Entry != nil:
		return fmt.Sprintf("put %v %v", c.Frontend.Proto, c.Frontend.Addr)
	}
	return fmt.Sprintf("delete %v %v", c.Frontend.Proto, c.Frontend.Addr)
}

// Diff lists the steps from have to want in an order in which a frontend
// never stands for a service that is not there.
func Diff(have, want Table) []Change {
	ids := map[ID]bool{}
	for _, t := range []Table{have, want} {
		for id := range t.Services {
			ids[id] = true
		}
	}
	fronts := map[Frontend]bool{}
	for _, t := range []Table{have, want} {
		for f := range t.Frontends {
			fronts[f] = true
		}
	}
	return diff(have, want, ids, fronts)
}

func diff(have, want Table, ids map[ID]bool, fronts map[Frontend]bool) (out []Change) {
	order := slices.Sorted(maps.Keys(ids))
	for _, id := range order {
		if w, ok := want.Services[id]; ok {
			if h, ok := have.Services[id]; !ok || !h.equal(w) {
				out = append(out, Change{ID: id, Service: &w})
			}
		}
	}
	for _, f := range slices.SortedFunc(maps.Keys(fronts), Frontend.compare) {
		h, had := have.Frontends[f]
		w, ok := want.Frontends[f]
		switch {
		case ok && (!had || h != w):
			out = append(out, Change{Frontend: f, Entry: &w})
		case !ok && had:
			out = append(out, Change{Frontend: f})
		}
	}
	for _, id := range order {
		_, has := have.Services[id]
		if _, wants := want.Services[id]; has && !wants {
			out = append(out, Change{ID: id})
		}
	}
	return out
}

// Changes lists what has to be done to the maps.
func (s *State) Changes() []Change { return diff(s.have, s.want, s.ids, s.fronts) }

// Sync makes m hold what it should. What fails is left for the next Sync,
// the rest is done. Lost tells that UDP backends went away, alone or with
// their service, so that sockets may be left with an address of the past.
func (s *State) Sync(m Maps) (lost bool, err error) {
	var errs []error
	changes := s.Changes()
	s.ids, s.fronts = map[ID]bool{}, map[Frontend]bool{}
	for _, c := range changes {
		if !s.due(c) {
			s.later(c)
			continue
		}
		gone := s.loses(c)
		if err := s.apply(m, c); err != nil {
			errs = append(errs, fmt.Errorf("%v: %w", c, err))
			s.later(c)
			continue
		}
		lost = lost || gone
	}
	return lost, errors.Join(errs...)
}

// due tells whether the steps that must come before c went well: a frontend
// waits for its service, and a service outlives its frontends.
func (s *State) due(c Change) bool {
	switch {
	case c.Entry != nil:
		_, ok := s.have.Services[c.Entry.Service]
		return ok
	case c.ID != 0 && c.Service == nil:
		return len(s.fronts) == 0
	}
	return true
}

func (s *State) later(c Change) {
	if c.ID != 0 {
		s.ids[c.ID] = true
	} else {
		s.fronts[c.Frontend] = true
	}
}

// apply carries out c, and notes that it was done.
func (s *State) apply(m Maps, c Change) (err error) {
	switch {
	case c.ID != 0 && c.Service != nil:
		if err = m.PutService(c.ID, *c.Service); err == nil {
			s.have.Services[c.ID] = *c.Service
		}
	case c.ID != 0:
		if err = m.DeleteService(c.ID); err == nil {
			delete(s.have.Services, c.ID)
			delete(s.protos, c.ID)
		}
	case c.Entry != nil:
		if err = m.PutFrontend(c.Frontend, *c.Entry); err == nil {
			s.unuse(c.Frontend)
			s.have.Frontends[c.Frontend] = *c.Entry
			s.users[c.Entry.Service]++
		}
	default:
		if err = m.DeleteFrontend(c.Frontend); err == nil {
			s.unuse(c.Frontend)
			delete(s.have.Frontends, c.Frontend)
		}
	}
	return err
}

func (s *State) unuse(f Frontend) {
	e, ok := s.have.Frontends[f]
	if !ok {
		return
	}
	if s.users[e.Service]--; s.users[e.Service] == 0 {
		delete(s.users, e.Service)
	}
}

// loses tells whether c takes a backend from a UDP service.
func (s *State) loses(c Change) bool {
	if c.ID == 0 || s.protos[c.ID] != UDP {
		return false
	}
	var now []Backend
	if c.Service != nil {
		now = c.Service.Backends
	}
	stays := make(map[Backend]bool, len(now))
	for _, b := range now {
		stays[b] = true
	}
	return slices.ContainsFunc(s.have.Services[c.ID].Backends, func(b Backend) bool { return !stays[b] })
}
