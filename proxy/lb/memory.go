package lb

import (
	"maps"
)

// Memory is Maps without a kernel. Its zero value is not usable, NewMemory is.
type Memory struct{ table Table }

// NewMemory returns empty maps.
func NewMemory() *Memory { return &Memory{NewTable()} }

// Dump returns a copy.
func (m *Memory) Dump() (Table, error) {
	return Table{maps.Clone(m.table.Frontends), maps.Clone(m.table.Services)}, nil
}

// PutService implements Maps.
func (m *Memory) PutService(id ID, s Service) error {
	m.table.Services[id] = s
	return nil
}

// DeleteService implements Maps.
func (m *Memory) DeleteService(id ID) error {
	delete(m.table.Services, id)
	return nil
}

// PutFrontend implements Maps.
func (m *Memory) PutFrontend(f Frontend, e Entry) error {
	m.table.Frontends[f] = e
	return nil
}

// DeleteFrontend implements Maps.
func (m *Memory) DeleteFrontend(f Frontend) error {
	delete(m.table.Frontends, f)
	return nil
}
