package resource

import (
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	resourcev1 "k8s.io/api/resource/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/types"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
	"github.com/knarr-dev/knarr/apis/volume"
)

var resourceClaims = apis.Define(apis.Resource[*resourcev1.ResourceClaim]{
	Plural: "resourceclaims",

	Default: func(c *resourcev1.ResourceClaim) {
		defaultClaim(&c.Spec)
		if a := c.Status.Allocation; a != nil {
			for i := range a.Devices.Results {
				defaultTolerations(a.Devices.Results[i].Tolerations)
			}
		}
	},
	Prepare:  meta.KeepStatus[*resourcev1.ResourceClaim],
	Validate: validateResourceClaim,
	Subs: []apis.Sub[*resourcev1.ResourceClaim]{{
		Name: "status", Keeps: append([]string{"spec"}, meta.StatusMeta()...),
		Prepare: prepareResourceClaimStatus, Validate: validateResourceClaimStatus,
	}},

	Columns: []apis.Column[*resourcev1.ResourceClaim]{
		{Name: "State", Cell: func(c *resourcev1.ResourceClaim, _ time.Time) any { return printState(c) }},
	},
	Lifetime: apis.Lifetime[*resourcev1.ResourceClaim]{ReturnsDeleted: true},
})

func printState(c *resourcev1.ResourceClaim) string {
	var states []string
	switch gone := c.DeletionTimestamp != nil; {
	case gone:
		states = append(states, "deleted")
	case c.Status.Allocation == nil:
		states = append(states, "pending")
	}
	if c.Status.Allocation != nil {
		states = append(states, "allocated")
		if len(c.Status.ReservedFor) > 0 {
			states = append(states, "reserved")
		}
	}
	return strings.Join(states, ",")
}

// A device is one that was given to a claim, or a share of it. Messages show
// it as a whole.
type device struct{ Driver, Pool, Device, ShareID string }

// allocated are the devices that a claim was given.
func allocated(c *resourcev1.ResourceClaim) map[device]bool {
	all := map[device]bool{}
	if c.Status.Allocation != nil {
		for _, r := range c.Status.Allocation.Devices.Results {
			all[device{r.Driver, r.Pool, r.Device, string(meta.Deref(r.ShareID, ""))}] = true
		}
	}
	return all
}

// prepareResourceClaimStatus forgets how devices are that the claim has no
// more.
func prepareResourceClaimStatus(c, old *resourcev1.ResourceClaim) {
	had, has := allocated(old), allocated(c)
	c.Status.Devices = slices.DeleteFunc(c.Status.Devices, func(s resourcev1.AllocatedDeviceStatus) bool {
		d := deviceOf(&s)
		return had[d] && !has[d]
	})
	if len(c.Status.Devices) == 0 {
		c.Status.Devices = nil
	}
}

func deviceOf(s *resourcev1.AllocatedDeviceStatus) device {
	return device{s.Driver, s.Pool, s.Device, meta.Deref(s.ShareID, "")}
}

func validateResourceClaim(c, old *resourcev1.ResourceClaim) field.ErrorList {
	at := check.New()
	if old != nil {
		at.Dot("spec").SameBare(c.Spec, old.Spec)
	} else {
		claim(at.Dot("spec"), &c.Spec)
	}
	return at.Errors()
}

func validateResourceClaimStatus(c, old *resourcev1.ResourceClaim) field.ErrorList {
	root, s := check.New(), &c.Status
	at := root.Dot("status")
	reserved := at.Dot("reservedFor")
	set(reserved, s.ReservedFor, resourcev1.ResourceClaimReservedForMaxSize,
		func(r *resourcev1.ResourceClaimConsumerReference) types.UID { return r.UID },
		func(at check.At, r *resourcev1.ResourceClaimConsumerReference) {
			at.Dot("resource").Present(r.Resource)
			at.Dot("name").Present(r.Name)
			at.Dot("uid").Present(string(r.UID))
		})
	has := allocated(c)
	set(at.Dot("devices"), s.Devices, len(s.Devices), deviceOf, func(at check.At, d *resourcev1.AllocatedDeviceStatus) {
		deviceStatus(at, d, has)
	})
	added := slices.ContainsFunc(s.ReservedFor, func(r resourcev1.ResourceClaimConsumerReference) bool {
		return !slices.Contains(old.Status.ReservedFor, r)
	})
	switch {
	case len(s.ReservedFor) > 0 && s.Allocation == nil:
		reserved.Forbidden("may not be specified when `allocated` is not set")
	case added && c.DeletionTimestamp != nil:
		reserved.Forbidden("new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set")
	}
	switch was := old.Status.Allocation; {
	case s.Allocation == nil:
	case was != nil:
		at.Dot("allocation").SameBare(s.Allocation, was)
	default:
		allocation(at.Dot("allocation"), s.Allocation, requestsOf(&c.Spec.Devices))
	}
	return root.Errors()
}

func deviceStatus(at check.At, d *resourcev1.AllocatedDeviceStatus, has map[device]bool) {
	volume.Driver(at.Dot("driver"), d.Driver)
	poolName(at.Dot("pool"), d.Pool)
	at.Dot("device").Label(d.Device)
	if d.ShareID != nil {
		share(at.Dot("shareID"), *d.ShareID)
	}
	if id := deviceOf(d); !has[id] {
		at.Invalid(id, "must be an allocated device in the claim")
	}
	conditions := at.Dot("conditions")
	if most := resourcev1.AllocatedDeviceStatusMaxConditions; len(d.Conditions) > most {
		conditions.TooMany(len(d.Conditions), most)
	}
	conditions.Add(metavalidation.ValidateConditions(d.Conditions, conditions.Path())...)
	if d.Data != nil && len(d.Data.Raw) > 0 {
		object(at.Dot("data"), *d.Data, resourcev1.AllocatedDeviceStatusDataMaxLength)
	}
	n, at := d.NetworkData, at.Dot("networkData")
	if n == nil {
		return
	}
	if most := resourcev1.NetworkDeviceDataInterfaceNameMaxLength; len(n.InterfaceName) > most {
		at.Dot("interfaceName").TooLong(most)
	}
	if most := resourcev1.NetworkDeviceDataHardwareAddressMaxLength; len(n.HardwareAddress) > most {
		at.Dot("hardwareAddress").TooLong(most)
	}
	set(at.Dot("ips"), n.IPs, resourcev1.NetworkDeviceDataMaxIPs, itself, func(at check.At, ip *string) {
		at.Add(utilvalidation.IsValidInterfaceAddress(at.Path(), *ip)...)
	})
}

// share demands the id of a share of a device, in its one proper form.
func share(at check.At, id string) {
	if err := uuid.Validate(id); err != nil {
		at.Invalid(id, "error validating uid: "+err.Error())
	} else if len(id) != 36 || id != strings.ToLower(id) {
		at.Invalid(id, "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters")
	}
}

// allocation checks what a claim is given. Once given it stays so.
func allocation(at check.At, a *resourcev1.AllocationResult, names claimed) {
	devices := at.Dot("devices")
	list(devices.Dot("results"), a.Devices.Results, resourcev1.AllocationResultsMaxSize, func(at check.At, r *resourcev1.DeviceRequestAllocationResult) {
		names.reference(at.Dot("request"), &r.Request)
		volume.Driver(at.Dot("driver"), r.Driver)
		poolName(at.Dot("pool"), r.Pool)
		at.Dot("device").Label(r.Device)
		bindings(at, r.BindingConditions, r.BindingFailureConditions)
		if r.ShareID != nil {
			share(at.Dot("shareID"), string(*r.ShareID))
		}
	})
	const most = 2 * resourcev1.DeviceConfigMaxSize // of the claim and its classes
	list(devices.Dot("config"), a.Devices.Config, most, func(at check.At, c *resourcev1.DeviceAllocationConfiguration) {
		check.ListedChoice(at.Dot("source"), c.Source, resourcev1.AllocationConfigSourceClaim, resourcev1.AllocationConfigSourceClass)
		names.references(at.Dot("requests"), c.Requests)
		configuration(at, &c.DeviceConfiguration, false)
	})
	if a.NodeSelector != nil {
		meta.NodeSelector(at.Dot("nodeSelector"), a.NodeSelector, false)
	}
}
