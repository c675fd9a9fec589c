package match

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/knarr-dev/knarr/apis"
)

// takePart is Take for what a subresource takes.
func (s *Seen) takePart(text []byte) error {
	into, ok := reflect.TypeAssert[apis.Object](reflect.New(reflect.TypeOf(s.request.Object).Elem()))
	if !ok {
		return fmt.Errorf("%T cannot be changed", s.request.Object)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return err
	}
	s.request.Object = into
	return nil
}

// connects is Take for a connection, which is made as it was asked for.
func (s *Seen) connects(text []byte) error {
	made, ok := reflect.TypeAssert[runtime.Object](reflect.New(reflect.TypeOf(s.request.Connects).Elem()))
	if !ok {
		return fmt.Errorf("%T cannot be changed", s.request.Connects)
	}
	if err := json.Unmarshal(text, made); err != nil {
		return err
	}
	if !apis.Equal(made, s.request.Connects) {
		return errors.New("what is connected to cannot be changed")
	}
	return nil
}

// rescale is Take for a scale, of which only the number wanted may be changed.
func (s *Seen) rescale(text []byte) error {
	var scale autoscalingv1.Scale
	if err := json.Unmarshal(text, &scale); err != nil {
		return err
	}
	obj, ok := s.request.Object.DeepCopyObject().(apis.Object)
	if !ok {
		return fmt.Errorf("%T is no object", s.request.Object)
	}
	s.request.Kind.Scale.Want(obj, scale.Spec.Replicas)
	s.request.Object = obj
	return nil
}
